//! portmap's conditionsV4 and conditionsV6: what else must hold of a packet, in the words of nft.
//!
//! In: a list of texts, such as `["ip saddr != 10.0.0.0/8"]`. Out: expressions of a rule. Must never: pass over a word
//! that it does not understand, since the port would be open to more than was meant.

use crate::error;
use crate::error::Error;
use crate::fields::Fields;
use netlink::nft::Expression;
use netlink::nft::Family;
use netlink::nft::Side;
use netlink::nft::address_is;
use netlink::nft::from_interface;
use netlink::route::Network;

/// Reads the conditions of a family.
///
/// # Errors
/// Code 6; 7 for words that are not understood, iptables' options above all.
pub fn parse(fields: &Fields<'_>, key: &str, family: Family) -> Result<Vec<Expression>, Error> {
    let text = fields.texts(key)?.join(" ");
    let mut words = text.split_whitespace();
    let mut expressions = Vec::new();
    let (keyword, example) =
        if family == Family::Ip { ("ip", "ip saddr != 10.0.0.0/8") } else { ("ip6", "ip6 saddr fd00::/8") };
    let wrong = || {
        let message = format!(
            "field {}: {text:?} is not understood: it takes nft's words {keyword} saddr, {keyword} daddr and iifname, such as {example:?}, not iptables' options; mend or drop it",
            fields.path(key)
        );
        Error::new(error::INVALID_CONFIG, message)
    };
    while let Some(word) = words.next() {
        let side = match word {
            "iifname" => None,
            word if word == keyword => match words.next() {
                Some("saddr") => Some(Side::Source),
                Some("daddr") => Some(Side::Destination),
                _ => return Err(wrong()),
            },
            _ => return Err(wrong()),
        };
        let (equal, value) = match words.next() {
            Some("==") => (true, words.next()),
            Some("!=") => (false, words.next()),
            other => (true, other),
        };
        let value = value.ok_or_else(wrong)?;
        match side {
            None => {
                let name = value.trim_matches('"');
                if !crate::plan::is_interface_name(name) {
                    return Err(wrong());
                }
                expressions.extend(from_interface(name, equal));
            }
            Some(side) => {
                let network =
                    network(value).filter(|network| network.address.is_ipv4() == (family == Family::Ip));
                expressions.extend(address_is(family, side, network.ok_or_else(wrong)?, equal));
            }
        }
    }
    Ok(expressions)
}

fn network(text: &str) -> Option<Network> {
    let host = |text: &str| {
        let address: std::net::IpAddr = text.parse().ok()?;
        Some(Network { address, prefix: if address.is_ipv4() { 32 } else { 128 } })
    };
    text.parse().ok().or_else(|| host(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(conditions: &[&str]) -> Result<Vec<Expression>, Error> {
        let config = json!({"conditionsV4": conditions});
        parse(&Fields::new(&config, "").unwrap(), "conditionsV4", Family::Ip)
    }

    #[test]
    fn nfts_words_become_expressions() {
        let network: Network = "10.0.0.0/8".parse().unwrap();
        let expected = address_is(Family::Ip, Side::Source, network, false);
        assert_eq!(read(&["ip saddr != 10.0.0.0/8"]).unwrap(), expected);
        assert_eq!(read(&["ip", "saddr", "!=", "10.0.0.0/8"]).unwrap(), expected);
        let both = read(&["iifname \"eth0\"", "ip daddr 192.0.2.1"]).unwrap();
        assert_eq!(both[..2], from_interface("eth0", true)[..]);
        assert_eq!(both.len(), 4);
        assert!(read(&[]).unwrap().is_empty());
    }

    #[test]
    fn rule_32_what_is_not_understood_is_code_7_and_never_passed_over() {
        for words in [
            "-s 10.0.0.0/8",
            "! -d 1.2.3.4",
            "ip saddr",
            "ip6 saddr fd00::1",
            "ip saddr fd00::1",
            "tcp dport 80",
            "iifname a/b",
        ] {
            let error = read(&[words]).unwrap_err();
            assert!(error.code == 7 && error.message.contains("conditionsV4"), "{words}: {error}");
        }
    }
}
