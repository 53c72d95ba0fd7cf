//! Encrypted connections: whom a client trusts, who it is, and files that change while it runs.
//!
//! The files are read again for every new connection, as etcd's own client does: a certificate that
//! was renewed is used from the next connection on. What cannot be used (a file that is half written,
//! a key that does not belong to its certificate yet) is logged, and what was read before stays.
//! Connections that exist go on.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Uri;
use tokio_rustls::rustls;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::types::IntoBytes;

/// What servers must agree to speak, as the handshake has it.
pub(crate) const HTTP2: &[u8] = b"h2";

/// How connections are encrypted: TLS 1.2 or 1.3, the server's certificate always verified.
#[derive(Clone, Default)]
pub struct Tls {
    authorities: Option<Pem>,
    identity: Option<(Pem, Pem)>,
    server_name: Option<String>,
}

/// Where a text is.
#[derive(Clone)]
enum Pem {
    File(PathBuf),
    Text(Bytes),
}

impl Tls {
    /// Trusts the machine's own list of authorities, and shows no certificate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the certificates in this PEM file, and no others. Read again for new connections.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.authorities = Some(Pem::File(path.into()));
        self
    }

    /// Trusts the certificates in this PEM text, and no others.
    #[must_use]
    pub fn ca_pem(mut self, pem: impl IntoBytes) -> Self {
        self.authorities = Some(Pem::Text(pem.into_bytes()));
        self
    }

    /// The certificate (with those between it and the authority, if any) that is shown to servers,
    /// and its key: PEM files, which are read again for new connections. Default: none.
    #[must_use]
    pub fn identity_files(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.identity = Some((Pem::File(certificate.into()), Pem::File(key.into())));
        self
    }

    /// As [`Tls::identity_files`], from PEM texts.
    #[must_use]
    pub fn identity_pem(mut self, certificate: impl IntoBytes, key: impl IntoBytes) -> Self {
        let text = |pem: Bytes| Pem::Text(pem);
        self.identity = Some((text(certificate.into_bytes()), text(key.into_bytes())));
        self
    }

    /// What servers' certificates must be for. Default: the host of each endpoint.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("authorities", &self.authorities)
            .field("identity", &self.identity)
            .field("server_name", &self.server_name)
            .finish()
    }
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.fmt(f),
            // It may be a key.
            Self::Text(_) => f.write_str("(given as text)"),
        }
    }
}

impl std::fmt::Display for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Text(_) => f.write_str("given as text"),
        }
    }
}

impl Pem {
    fn read(&self, what: &str) -> Result<Bytes, String> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => match std::fs::read(path) {
                Ok(text) => Ok(text.into()),
                Err(why) => Err(format!("{what} {} cannot be read: {why}", path.display())),
            },
        }
    }
}

/// What a client's connections are made with; shared by all of them.
pub(crate) struct Trust {
    settings: Tls,
    server_name: Option<ServerName<'static>>,
    /// The machine's own list, if no other was given; read once.
    machine: Option<Arc<RootCertStore>>,
    current: Mutex<Current>,
}

struct Current {
    texts: Texts,
    config: Arc<ClientConfig>,
    /// Why the files could not be used when they were read last; said once.
    refused: Option<String>,
}

/// Everything that was read, to notice a change by.
#[derive(PartialEq, Eq)]
struct Texts {
    authorities: Option<Bytes>,
    identity: Option<(Bytes, Bytes)>,
}

impl Trust {
    /// Reads everything for the first time; says what is wrong otherwise.
    pub(crate) fn open(settings: Tls) -> Result<Self, String> {
        let server_name = settings.server_name.clone().map(|name| {
            ServerName::try_from(name.clone())
                .map_err(|_| format!("the server name {name:?} is neither a name nor an address"))
        });
        let machine = match &settings.authorities {
            Some(_) => None,
            None => Some(Arc::new(machine_roots()?)),
        };
        let texts = settings.read()?;
        let config = settings.build(&texts, machine.as_ref())?;
        Ok(Self {
            server_name: server_name.transpose()?,
            machine,
            current: Mutex::new(Current {
                texts,
                config: Arc::new(config),
                refused: None,
            }),
            settings,
        })
    }

    /// What the next connection is made with. Reads files.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        let texts = self.settings.read();
        let mut current = self
            .current
            .lock()
            .expect("nothing panics while it holds this lock");
        let built = texts.and_then(|texts| {
            if texts == current.texts {
                return Ok(None);
            }
            let config = self.settings.build(&texts, self.machine.as_ref())?;
            Ok(Some((texts, config)))
        });
        match built {
            Ok(None) => current.refused = None,
            Ok(Some((texts, config))) => {
                tracing::info!("the certificates have changed and are used from now on");
                *current = Current {
                    texts,
                    config: Arc::new(config),
                    refused: None,
                };
            }
            Err(why) => {
                if current.refused.as_ref() != Some(&why) {
                    tracing::warn!(%why, "changed certificates cannot be used; the old ones stay");
                    current.refused = Some(why);
                }
            }
        }
        current.config.clone()
    }

    /// Whom the server at `uri` must prove to be.
    pub(crate) fn server_name(&self, uri: &Uri) -> Result<ServerName<'static>, String> {
        if let Some(name) = &self.server_name {
            return Ok(name.clone());
        }
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        ServerName::try_from(host.to_owned())
            .map_err(|_| format!("the host {host:?} is neither a name nor an address"))
    }
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.settings.fmt(f)
    }
}

fn machine_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A machine's list has always some that are too old to be understood.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(format!(
            "this machine has no list of certificate authorities ({}); name a CA file",
            why.join("; ")
        ));
    }
    Ok(roots)
}

impl Tls {
    fn read(&self) -> Result<Texts, String> {
        let authorities = self.authorities.as_ref().map(|pem| pem.read("the CA file"));
        let identity = self.identity.as_ref().map(|(certificate, key)| {
            let certificate = certificate.read("the certificate")?;
            Ok::<_, String>((certificate, key.read("the key")?))
        });
        Ok(Texts {
            authorities: authorities.transpose()?,
            identity: identity.transpose()?,
        })
    }

    fn build(
        &self,
        texts: &Texts,
        machine: Option<&Arc<RootCertStore>>,
    ) -> Result<ClientConfig, String> {
        let roots = match (&texts.authorities, machine) {
            (Some(text), _) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(text, "the CA file", self.authorities.as_ref())? {
                    let bad = |why| format!("the CA file has a certificate that is none: {why}");
                    roots.add(certificate).map_err(bad)?;
                }
                Arc::new(roots)
            }
            (None, Some(machine)) => machine.clone(),
            (None, None) => unreachable!("either a CA file is read or the machine's list"),
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring knows TLS 1.2 and 1.3")
            .with_root_certificates(roots);
        let mut config = match &texts.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let (where_certificate, where_key) =
                    self.identity.as_ref().expect("it was read from there");
                let chain = certificates(certificate, "the certificate", Some(where_certificate))?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|why| {
                    format!(
                        "the key {where_key} holds no private key in PEM: {why}; one with a \
                         passphrase is not understood"
                    )
                })?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|why| match why {
                        rustls::Error::InconsistentKeys(_) => {
                            format!(
                                "the key {where_key} is not the one of the certificate \
                                 {where_certificate}"
                            )
                        }
                        why => format!("the certificate {where_certificate}: {why}"),
                    })?
            }
        };
        config.alpn_protocols = vec![HTTP2.to_vec()];
        Ok(config)
    }
}

fn certificates(
    text: &Bytes,
    what: &str,
    whence: Option<&Pem>,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let whence = whence.map(ToString::to_string).unwrap_or_default();
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match all {
        Ok(all) if all.is_empty() => Err(format!("{what} {whence} holds no certificate in PEM")),
        Ok(all) => Ok(all),
        Err(why) => Err(format!("{what} {whence} is no PEM: {why}")),
    }
}
