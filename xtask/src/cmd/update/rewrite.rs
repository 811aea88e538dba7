//! A pin in the text of sources.toml -> another one. In: the text, the offers. Out: the text, with its comments and its order.
//! Must never: change a line of another source.

use anyhow::{Context, Result};

use super::Offer;
use crate::sources::{Place, Source};

/// `text` with `source` pinned to what the offers, one for each origin, say. An origin without a hash is left out.
pub fn pin(text: &str, source: &Source, offers: &[Option<Offer>]) -> Result<String> {
    let offer = offers.iter().flatten().next().context("there is no offer to pin")?;
    let header = format!("[source.{}]", source.name);
    let origin_header = format!("[[source.{}.origin]]", source.name);
    let mut out: Vec<String> = Vec::new();
    // None: outside of this source; otherwise how many of its origins have begun.
    let mut origins_begun: Option<usize> = None;
    let mut dropping = false;
    for line in text.lines() {
        if line.starts_with('[') {
            dropping = false;
            origins_begun = match origins_begun {
                _ if line == header => Some(0),
                Some(count) if line == origin_header => Some(count + 1),
                _ => None,
            };
            let offer = origins_begun.filter(|count| *count > 0).map(|count| offers.get(count - 1));
            if matches!(offer, Some(offer) if usable(offer).is_none()) {
                dropping = true;
                // The comment above belongs to it.
                while out.last().is_some_and(|line| line.starts_with('#')) {
                    out.pop();
                }
                continue;
            }
        }
        if dropping {
            continue;
        }
        let changed = match origins_begun {
            Some(0) => line.starts_with("version = ").then(|| format!("version = {:?}", offer.version)),
            Some(count) => {
                let origin = source.origins.get(count - 1).context("sources.toml changed meanwhile")?;
                let offer = usable(offers.get(count - 1)).context("there is no offer for this origin")?;
                let key = line.split(" = ").next().unwrap_or_default();
                match (key, &origin.place) {
                    ("sha256", _) => offer.sha256.as_ref().map(|sha256| format!("sha256 = {sha256:?}")),
                    ("hash_from", _) => Some(format!("hash_from = {:?}", offer.hash_from)),
                    ("file", _) => Some(format!("file = {:?}", offer.file)),
                    ("url", Place::Url(url)) => {
                        let (folder, _) = url.rsplit_once('/').context("an address has a folder")?;
                        Some(format!("url = \"{folder}/{}\"", offer.file))
                    }
                    _ => None,
                }
            }
            None => None,
        };
        out.push(changed.unwrap_or_else(|| line.to_owned()));
    }
    Ok(tidied(&out))
}

fn usable(offer: Option<&Option<Offer>>) -> Option<&Offer> {
    offer?.as_ref().filter(|offer| offer.sha256.is_some())
}

/// Lines as a text, without two empty ones behind each other or one at the end.
fn tidied(lines: &[String]) -> String {
    let mut out = String::new();
    let mut previous = "";
    for line in lines {
        if !(line.is_empty() && previous.is_empty()) {
            out += line;
            out.push('\n');
        }
        previous = line;
    }
    out.trim_end().to_owned() + "\n"
}

/// `text` with another epoch, and the comment's date with it.
pub fn epoch(text: &str, epoch: u64) -> String {
    let date = crate::stage::iso::volume_date(epoch);
    let said = format!("{}-{}-{} 00:00:00 UTC.", &date[..4], &date[4..6], &date[6..8]);
    let lines: Vec<String> = text
        .lines()
        .map(|line| match line.split_once(" 00:00:00 UTC.") {
            _ if line.starts_with("epoch = ") => format!("epoch = {epoch}"),
            Some((before, rest)) if line.starts_with('#') && before.len() > 10 => {
                format!("{}{said}{rest}", &before[..before.len() - 10])
            }
            _ => line.to_owned(),
        })
        .collect();
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::Sources;

    const REAL: &str = include_str!("../../../sources.toml");

    fn offer(file: &str, sha256: Option<char>) -> Option<Offer> {
        Some(Offer {
            version: "6.12.99".to_owned(),
            file: file.to_owned(),
            sha256: sha256.map(|digit| digit.to_string().repeat(64)),
            hash_from: "the test".to_owned(),
        })
    }

    #[test]
    fn both_origins_get_their_new_files_and_the_rest_stays() {
        let sources = Sources::parse(REAL, "x").unwrap();
        let offers =
            [offer("linux-6.12.99.tar.xz", Some('a')), offer("linux_6.12.99.orig.tar.xz", Some('b'))];
        let text = epoch(&pin(REAL, &sources.linux, &offers).unwrap(), 1_796_083_200);
        let new = Sources::parse(&text, "x").unwrap();
        assert_eq!((new.linux.version.as_str(), new.epoch), ("6.12.99", 1_796_083_200));
        assert!(text.contains("2026-12-01 00:00:00 UTC."), "{text}");
        let hashes: Vec<&str> = new.linux.origins.iter().map(|origin| &origin.sha256[..1]).collect();
        assert_eq!(hashes, ["a", "b"]);
        assert!(
            matches!(&new.linux.origins[0].place, Place::Url(url) if url.ends_with("/v6.x/linux-6.12.99.tar.xz"))
        );
        assert_eq!(new.linux.origins[1].file, "linux_6.12.99.orig.tar.xz");
        assert_eq!(
            (&new.busybox, &new.tini, &new.iproute2),
            (&sources.busybox, &sources.tini, &sources.iproute2)
        );
        assert_eq!(text.matches('#').count(), REAL.matches('#').count());
    }

    #[test]
    fn an_origin_without_a_hash_is_left_out() {
        let sources = Sources::parse(REAL, "x").unwrap();
        let offers = [offer("linux-6.12.99.tar.xz", None), offer("linux_6.12.99.orig.tar.xz", Some('b'))];
        let new = Sources::parse(&pin(REAL, &sources.linux, &offers).unwrap(), "x").unwrap();
        assert_eq!(new.linux.origins.len(), 1);
        assert!(matches!(new.linux.origins[0].place, Place::Debian { .. }));
        let offers = [offer("linux-6.12.99.tar.xz", Some('a')), None];
        let text = pin(REAL, &sources.linux, &offers).unwrap();
        assert_eq!(Sources::parse(&text, "x").unwrap().linux.origins.len(), 1);
        assert!(!text.contains("Debian's tarball lacks"), "the comment belongs to what was left out");
    }
}
