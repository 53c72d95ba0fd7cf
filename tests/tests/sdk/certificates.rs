//! Authorities, and certificates that they sign, for one test.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// One authority.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
}

/// A certificate and its key, as PEM.
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("the parameters are fine");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("the parameters are fine");
        let pem = params
            .self_signed(&key)
            .expect("the parameters are fine")
            .pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    /// For whoever is called `name`, at this machine's own address.
    pub(super) fn identity(&self, name: &str) -> Identity {
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut params = CertificateParams::new(names).expect("the parameters are fine");
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // etcd's own gateway shows the server's certificate as a client's.
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("the parameters are fine");
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("the parameters are fine")
            .pem();
        let key = key.serialize_pem();
        Identity { certificate, key }
    }
}

/// Writes `NAME.pem` and `NAME.key` into `dir`.
pub(super) fn write(dir: &Path, name: &str, identity: &Identity) -> (PathBuf, PathBuf) {
    let (certificate, key) = (
        dir.join(format!("{name}.pem")),
        dir.join(format!("{name}.key")),
    );
    std::fs::write(&certificate, &identity.certificate).expect("a new directory");
    std::fs::write(&key, &identity.key).expect("a new directory");
    (certificate, key)
}
