//! What a proxy changes in the heads of messages: connection headers stay on their
//! connection (RFC 9110 section 7.6.1), and the upstream learns who asked.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");

/// The client's side of a connection, as headers tell it upstream.
#[derive(Debug, Clone)]
pub struct Client {
    pub address: HeaderValue,
    /// The port that the client connected to.
    pub port: HeaderValue,
    /// `http` or `https`.
    pub scheme: HeaderValue,
}

/// The protocol a client asks to change to, if it does.
pub fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let asks = connection_options(headers).any(|option| option.eq_ignore_ascii_case("upgrade"));
    asks.then(|| headers.get(UPGRADE).cloned()).flatten()
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|option| !option.is_empty())
}

/// Removes what concerns one connection only.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let listed: Vec<HeaderName> =
            connection_options(headers).filter_map(|option| option.parse().ok()).collect();
        for name in listed {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    if headers.remove(TRANSFER_ENCODING).is_some() {
        // The body's real length is the transfer coding's; a second opinion is an attack.
        headers.remove(CONTENT_LENGTH);
    }
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        UPGRADE,
    ] {
        headers.remove(name);
    }
}

/// Makes a client's headers those of the request to the pod. What a client claims about
/// forwarding is replaced: nobody before this proxy is trusted.
pub fn to_upstream(
    headers: &mut HeaderMap,
    client: &Client,
    host: HeaderValue,
    upgrade: Option<HeaderValue>,
) {
    strip_hop_by_hop(headers);
    // This server has already told the client to go on.
    headers.remove(EXPECT);
    headers.remove(FORWARDED);
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
    headers.insert(FORWARDED_FOR, client.address.clone());
    headers.insert(REAL_IP, client.address.clone());
    headers.insert(FORWARDED_PROTO, client.scheme.clone());
    headers.insert(FORWARDED_PORT, client.port.clone());
    headers.insert(FORWARDED_HOST, host.clone());
    headers.insert(HOST, host);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            let name: HeaderName = name.parse().expect("a name");
            map.append(name, value.parse().expect("a value"));
        }
        map
    }

    fn lines(map: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<String> = map
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
            .collect();
        lines.sort();
        lines
    }

    fn client() -> Client {
        Client {
            address: HeaderValue::from_static("192.0.2.1"),
            port: HeaderValue::from_static("80"),
            scheme: HeaderValue::from_static("http"),
        }
    }

    #[test]
    fn connection_headers_stay_and_forwarding_is_told() {
        let mut headers = map(&[
            ("host", "web.example:80"),
            ("connection", "keep-alive, X-Secret"),
            ("keep-alive", "timeout=5"),
            ("x-secret", "hop"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("expect", "100-continue"),
            ("x-forwarded-for", "10.9.9.9"),
            ("forwarded", "for=10.9.9.9"),
            ("accept", "text/html"),
        ]);
        to_upstream(&mut headers, &client(), HeaderValue::from_static("web.example:80"), None);
        assert_eq!(
            lines(&headers),
            [
                "accept: text/html",
                "host: web.example:80",
                "x-forwarded-for: 192.0.2.1",
                "x-forwarded-host: web.example:80",
                "x-forwarded-port: 80",
                "x-forwarded-proto: http",
                "x-real-ip: 192.0.2.1",
            ]
        );
    }

    #[test]
    fn an_upgrade_is_passed_on_only_when_asked_for() {
        let asked = map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        let upgrade = upgrade_of(&asked);
        assert_eq!(upgrade, Some(HeaderValue::from_static("websocket")));
        let mut headers = asked;
        to_upstream(&mut headers, &client(), HeaderValue::from_static("h"), upgrade);
        assert_eq!(headers[CONNECTION], "upgrade");
        assert_eq!(headers[UPGRADE], "websocket");
        assert_eq!(upgrade_of(&map(&[("upgrade", "h2c")])), None);
    }
}
