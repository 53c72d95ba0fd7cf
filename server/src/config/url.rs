//! URLs of members, and `--initial-cluster`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use super::InitialMember;

/// `http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Url {
    /// A name or an address; an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A URL whose host is an address of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenUrl {
    /// As it was written.
    pub url: Url,
    /// Where to bind; `localhost` is 127.0.0.1.
    pub address: SocketAddr,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "http://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "http://{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "write a URL such as http://10.0.0.1:2379".to_owned();
        let (scheme, rest) = text.split_once("://").ok_or_else(form)?;
        match scheme {
            "http" => {}
            "https" => return Err("https is not supported yet; use http".to_owned()),
            "unix" | "unixs" => return Err("unix sockets are not supported; use http".to_owned()),
            _ => return Err(form()),
        }
        if rest.contains(['/', '?', '#', '@']) {
            return Err("the URL must end after the port".to_owned());
        }
        let (host, port) = rest.rsplit_once(':').ok_or("the URL must have a port")?;
        let port = port
            .parse()
            .map_err(|_| "the port must be a number up to 65535")?;
        let host = match host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
        {
            Some(inside) if inside.parse::<std::net::Ipv6Addr>().is_ok() => inside,
            Some(_) => return Err("only IPv6 addresses stand in brackets".to_owned()),
            None if host.contains(':') => return Err("IPv6 addresses stand in brackets".to_owned()),
            None => host,
        };
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(form());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl Url {
    /// Whether two texts name the same place as far as that shows without asking a name server.
    pub(super) fn same_place(&self, other: &Self) -> bool {
        let host = |url: &Self| match url.host.as_str() {
            "localhost" => "127.0.0.1".to_owned(),
            host => host.to_ascii_lowercase(),
        };
        self.port == other.port && host(self) == host(other)
    }

    /// Whether the host is an address that means "all of this machine's", which nobody can dial.
    pub(super) fn is_unspecified(&self) -> bool {
        self.host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_unspecified())
    }

    fn listen(self) -> Result<ListenUrl, String> {
        let address = match self.host.as_str() {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            host => host
                .parse()
                .map_err(|_| "to listen, give an IP address of this machine or localhost")?,
        };
        Ok(ListenUrl {
            address: SocketAddr::new(address, self.port),
            url: self,
        })
    }
}

/// Reads a list of URLs with commas.
pub(super) fn parse_urls(text: &str) -> Result<Vec<Url>, String> {
    text.split(',').map(|url| url.trim().parse()).collect()
}

/// Reads a list of URLs with commas, to listen at.
pub(super) fn parse_listen_urls(text: &str) -> Result<Vec<ListenUrl>, String> {
    parse_urls(text)?.into_iter().map(Url::listen).collect()
}

/// Reads `name=url,name=url`, in which a name with several URLs comes several times.
pub(super) fn parse_cluster(text: &str) -> Result<Vec<InitialMember>, String> {
    let form = || "write name=http://host:port for each member, with commas".to_owned();
    let mut members: Vec<InitialMember> = Vec::new();
    for part in text.split(',') {
        let (name, url) = part.trim().split_once('=').ok_or_else(form)?;
        let url: Url = url.parse()?;
        match members.iter_mut().find(|member| member.name == name) {
            Some(member) => member.peer_urls.push(url),
            None => members.push(InitialMember {
                name: name.to_owned(),
                peer_urls: vec![url],
            }),
        }
    }
    for member in &mut members {
        member.peer_urls.sort();
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_read_and_write_back() {
        for text in [
            "http://localhost:2379",
            "http://10.0.0.1:1",
            "http://[::1]:2379",
            "http://a.b:0",
        ] {
            assert_eq!(text.parse::<Url>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_url_is_refused_with_its_reason() {
        let cases = [
            ("localhost:2379", "write a URL"),
            ("http://localhost", "must have a port"),
            ("http://localhost:x", "port must be a number"),
            ("http://localhost:70000", "port must be a number"),
            ("http://localhost:2379/", "must end after the port"),
            ("http://:2379", "write a URL"),
            ("http://::1:2379", "brackets"),
            ("https://localhost:2379", "https is not supported yet"),
            ("unix:///run/s", "unix sockets"),
            ("ftp://localhost:1", "write a URL"),
        ];
        for (text, want) in cases {
            let why = text.parse::<Url>().unwrap_err();
            assert!(why.contains(want), "{text}: {why}");
        }
    }

    #[test]
    fn only_addresses_of_this_machine_can_be_listened_at() {
        assert_eq!(
            parse_listen_urls("http://localhost:1").unwrap()[0]
                .address
                .to_string(),
            "127.0.0.1:1"
        );
        assert_eq!(
            parse_listen_urls("http://[::]:2").unwrap()[0]
                .address
                .to_string(),
            "[::]:2"
        );
        assert!(
            parse_listen_urls("http://example.com:1")
                .unwrap_err()
                .contains("to listen")
        );
    }

    #[test]
    fn a_member_may_have_several_urls() {
        let members = parse_cluster("b=http://b:2,a=http://a:1,b=http://b:1").unwrap();
        let shown: Vec<_> = members
            .iter()
            .map(|m| {
                (
                    m.name.as_str(),
                    m.peer_urls.iter().map(Url::to_string).collect::<Vec<_>>(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("b", vec!["http://b:1".to_owned(), "http://b:2".to_owned()]),
                ("a", vec!["http://a:1".to_owned()])
            ]
        );
        for text in ["", "a", "a=b:1", "a=http://a:1,"] {
            assert!(parse_cluster(text).is_err(), "{text} was read");
        }
    }
}
