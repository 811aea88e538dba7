//! Published ports as people write them, `[ADDRESS:]HOST:CONTAINER[/PROTOCOL]`, and as CNI has them (portMappings).
//!
//! In: one form. Out: the other. Must never: let a port through that is none.

use std::net::IpAddr;

use serde_json::Value;
use serde_json::json;

use super::error;
use super::error::Error;

/// Reads a published port; an IPv6 address stands in brackets.
///
/// # Errors
/// Code 4, with the form.
pub fn parse(text: &str) -> Result<Value, Error> {
    let wrong = || {
        let form = "expected [ADDRESS:]HOST:CONTAINER[/PROTOCOL], such as 8080:80, 127.0.0.1:53:53/udp or [::1]:8080:80";
        Error::new(error::INVALID_ENVIRONMENT, format!("--publish {text}: {form}"))
    };
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if !matches!(protocol, "tcp" | "udp" | "sctp") {
        return Err(wrong());
    }
    let (rest, container) = ports.rsplit_once(':').ok_or_else(wrong)?;
    let (address, host) = match rest.rsplit_once(':') {
        Some((address, host)) => (Some(address), host),
        None => (None, rest),
    };
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(wrong);
    let mut mapping =
        json!({"hostPort": port(host)?, "containerPort": port(container)?, "protocol": protocol});
    if let Some(address) = address {
        let bare = address.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let address: IpAddr = bare.unwrap_or(address).parse().map_err(|_| wrong())?;
        if address.is_ipv6() != bare.is_some() {
            return Err(wrong());
        }
        mapping["hostIP"] = json!(address);
    }
    Ok(mapping)
}

/// Shows a port mapping, as `8080->80/tcp`.
pub fn show(mapping: &Value) -> String {
    let address = match mapping["hostIP"].as_str() {
        Some(address) if address.contains(':') => format!("[{address}]:"),
        Some(address) if !address.is_empty() => format!("{address}:"),
        _ => String::new(),
    };
    let protocol = mapping["protocol"].as_str().unwrap_or("tcp");
    format!("{address}{}->{}/{protocol}", mapping["hostPort"], mapping["containerPort"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_shown() {
        for (text, shown) in [
            ("8080:80", "8080->80/tcp"),
            ("53:5353/udp", "53->5353/udp"),
            ("127.0.0.1:8080:80", "127.0.0.1:8080->80/tcp"),
            ("[::1]:8080:80/sctp", "[::1]:8080->80/sctp"),
        ] {
            assert_eq!(show(&parse(text).unwrap()), shown);
        }
        assert_eq!(parse("8080:80").unwrap().get("hostIP"), None);
    }

    #[test]
    fn what_is_no_port_is_refused_with_the_form() {
        for text in [
            "",
            "80",
            "80:",
            ":80",
            "0:80",
            "80:65536",
            "80:80/icmp",
            "x:80:80",
            "::1:80:80",
            "[1.2.3.4]:1:1",
        ] {
            assert!(parse(text).unwrap_err().message.contains("expected [ADDRESS:]HOST:CONTAINER"), "{text}");
        }
    }
}
