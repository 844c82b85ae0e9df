//! Where an etcd is and what of it is ours: `etcd://host:port,host:port/namespace`, `etcds://` with TLS.

use crate::object::OpenError;

/// The namespace where none is given.
const DEFAULT_NAMESPACE: &str = "millrace";

/// etcd's port for clients, where none is given.
const DEFAULT_PORT: u16 = 2379;

/// More endpoints than any etcd cluster should have.
const MOST_ENDPOINTS: usize = 16;

const FIX: &str = "write --metadata etcd://HOST:PORT,HOST:PORT/NAMESPACE (or etcds:// with TLS); the namespace is made of \
                   letters, digits and . _ - /";

/// A parsed address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EtcdAddress {
    /// `host:port` of each endpoint, at least one.
    pub endpoints: Vec<String>,
    /// Whether they are spoken to over TLS.
    pub tls: bool,
    /// What every key starts with: `/` and a name.
    pub namespace: String,
}

impl EtcdAddress {
    /// Whether a setting names an etcd.
    pub fn is_one(text: &str) -> bool {
        text.starts_with("etcd://") || text.starts_with("etcds://")
    }

    /// Reads one.
    ///
    /// # Errors
    /// It names no endpoint, or something in it can't be a part of one.
    pub fn parse(text: &str) -> Result<EtcdAddress, OpenError> {
        let refused = |what: &str| OpenError::new(format!("{text} is no etcd: {what}"), FIX);
        let (scheme, rest) = text.split_once("://").ok_or_else(|| refused("it has no scheme"))?;
        let tls = match scheme {
            "etcd" => false,
            "etcds" => true,
            _ => return Err(refused("its scheme is neither etcd nor etcds")),
        };
        if rest.contains('@') {
            return Err(refused("a user and a password are settings of their own (--etcd-user)"));
        }
        let (hosts, namespace) = rest.split_once('/').unwrap_or((rest, ""));
        let endpoints: Vec<String> =
            hosts.split(',').map(endpoint).collect::<Option<_>>().ok_or_else(|| refused("not every host is one"))?;
        if endpoints.len() > MOST_ENDPOINTS {
            return Err(refused("that many endpoints no etcd has"));
        }
        let namespace = namespace.trim_matches('/');
        let namespace = if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace };
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
        if !namespace.chars().all(fits) || namespace.contains("//") {
            return Err(refused("its namespace has a character that is none of a name"));
        }
        Ok(EtcdAddress { endpoints, tls, namespace: format!("/{namespace}") })
    }

    /// Endpoint as a URL.
    pub(super) fn url(&self, index: usize) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.endpoints[index])
    }
}

/// `host:port` of what may lack the port.
fn endpoint(text: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '[' | ']');
    if text.is_empty() || !text.chars().all(fits) {
        return None;
    }
    // An IPv6 address has its colons in brackets.
    let behind = text.rsplit_once(']').map_or(text, |(_, behind)| behind);
    match behind.rsplit_once(':') {
        Some((_, port)) => port.parse::<u16>().ok().filter(|port| *port > 0).map(|_| text.to_owned()),
        None => Some(format!("{text}:{DEFAULT_PORT}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_endpoints_and_a_namespace() {
        let parsed = EtcdAddress::parse("etcd://a:1,b,[::1]:7,[::1]/teams/blue/").unwrap();
        assert_eq!(parsed.endpoints, ["a:1", "b:2379", "[::1]:7", "[::1]:2379"]);
        assert_eq!((parsed.tls, parsed.namespace.as_str()), (false, "/teams/blue"));
        assert_eq!(parsed.url(0), "http://a:1");
        let parsed = EtcdAddress::parse("etcds://a").unwrap();
        assert_eq!((parsed.url(0), parsed.namespace), ("https://a:2379".to_owned(), "/millrace".to_owned()));
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_to_write() {
        for text in [
            "etcd://",
            "etcd://a,,b",
            "etcd://a:0",
            "etcd://a:x",
            "etcd://me:secret@a:1",
            "etcd://a/b//c",
            "etcd://a/b@c",
            "http://a:1",
            "a:1",
        ] {
            let error = EtcdAddress::parse(text).expect_err(text);
            assert!(error.fix.contains("etcd://HOST:PORT"), "{error}");
        }
    }
}
