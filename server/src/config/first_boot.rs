//! The rules for a data directory that is new.

use super::error::ConfigError;
use super::{Config, InitialMember, Url};

impl Config {
    /// Checks `--initial-cluster` against this member, for the first start of a data directory.
    ///
    /// A directory that was started before knows its cluster, and the `initial-` options are not
    /// looked at any more: their rules are checked only by who finds the directory empty.
    pub fn verify_first_boot(&self) -> Result<(), ConfigError> {
        let conflict = |text: String| Err(ConfigError::Conflict(text));
        let cluster = &self.initial.cluster;
        let Some(own) = cluster.iter().find(|member| member.name == self.name) else {
            return conflict(format!(
                "couldn't find local name {:?} in the initial cluster configuration {}; \
                 --name and --initial-cluster must agree",
                self.name,
                show(cluster)
            ));
        };
        let advertised = &self.initial.advertise_peer_urls;
        if !same_places(&own.peer_urls, advertised) {
            return conflict(format!(
                "--initial-cluster has {} for this member, but --initial-advertise-peer-urls is {}",
                show(std::slice::from_ref(own)),
                list(advertised)
            ));
        }
        let mut seen: Vec<(&Url, &str)> = Vec::new();
        for member in cluster {
            for url in &member.peer_urls {
                if let Some((_, other)) = seen.iter().find(|(known, _)| known.same_place(url)) {
                    return conflict(format!(
                        "--initial-cluster has {url} twice: for {other} and for {}",
                        member.name
                    ));
                }
                seen.push((url, &member.name));
            }
        }
        Ok(())
    }
}

fn same_places(a: &[Url], b: &[Url]) -> bool {
    let within = |a: &[Url], b: &[Url]| a.iter().all(|x| b.iter().any(|y| x.same_place(y)));
    within(a, b) && within(b, a)
}

fn list(urls: &[Url]) -> String {
    urls.iter()
        .map(Url::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

/// The members as they would be written.
fn show(members: &[InitialMember]) -> String {
    let each = |member: &InitialMember| {
        let urls = member
            .peer_urls
            .iter()
            .map(|url| format!("{}={url}", member.name));
        urls.collect::<Vec<_>>().join(",")
    };
    members.iter().map(each).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::super::Options;

    fn verify(options: &[(&str, &str)]) -> Result<(), String> {
        let mut all = Options::default();
        for (flag, value) in options {
            all.set(flag, *value).unwrap();
        }
        all.resolve()
            .unwrap()
            .verify_first_boot()
            .map_err(|err| err.to_string())
    }

    #[test]
    fn a_member_alone_needs_nothing() {
        assert_eq!(verify(&[]), Ok(()));
        assert_eq!(
            verify(&[("name", "a"), ("listen-peer-urls", "http://127.0.0.1:7")]),
            Ok(())
        );
    }

    #[test]
    fn the_cluster_must_have_the_member() {
        let err = verify(&[
            ("name", "a"),
            ("initial-cluster", "b=http://localhost:2380"),
        ])
        .unwrap_err();
        assert!(
            err.starts_with("couldn't find local name \"a\" in the initial cluster"),
            "{err}"
        );
    }

    #[test]
    fn the_cluster_must_have_the_members_own_urls() {
        let cluster = (
            "initial-cluster",
            "a=http://10.0.0.1:2380,b=http://10.0.0.2:2380",
        );
        let own = "initial-advertise-peer-urls";
        assert_eq!(
            verify(&[("name", "a"), cluster, (own, "http://10.0.0.1:2380")]),
            Ok(())
        );
        let err = verify(&[("name", "a"), cluster, (own, "http://10.0.0.9:2380")]).unwrap_err();
        assert_eq!(
            err,
            "--initial-cluster has a=http://10.0.0.1:2380 for this member, but \
             --initial-advertise-peer-urls is http://10.0.0.9:2380"
        );
    }

    #[test]
    fn localhost_and_its_address_are_the_same_place() {
        let cluster = ("initial-cluster", "a=http://localhost:7");
        assert_eq!(
            verify(&[
                ("name", "a"),
                cluster,
                ("listen-peer-urls", "http://127.0.0.1:7")
            ]),
            Ok(())
        );
    }

    #[test]
    fn two_members_cannot_share_a_url() {
        let cluster = (
            "initial-cluster",
            "a=http://localhost:2380,b=http://127.0.0.1:2380",
        );
        let err = verify(&[("name", "a"), cluster]).unwrap_err();
        assert_eq!(
            err,
            "--initial-cluster has http://127.0.0.1:2380 twice: for a and for b"
        );
    }
}
