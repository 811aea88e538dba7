//! An origin -> the versions that it has. In: the pinned origin. Out: offers, with the hash that the origin itself publishes
//! beside the tarball, if it does. Must never: download a tarball.

use anyhow::{Context, Result};

use crate::context::Build;
use crate::sources::{Origin, Place, Source};
use crate::stage::fetch::{self, debian};

/// A version that an origin has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The version.
    pub version: String,
    /// The tarball's file name there.
    pub file: String,
    /// Its hash, where the origin tells it.
    pub sha256: Option<String>,
    /// Where the hash is from.
    pub hash_from: String,
}

/// All versions that `origin` has of `source`.
pub fn origin(build: &Build, source: &Source, origin: &Origin) -> Result<Vec<Offer>> {
    match &origin.place {
        Place::Url(url) => address(build, source, url),
        Place::Debian { package, suites } => {
            let apt_get = build.host.find("apt-get").context("this machine has no apt")?;
            let index = debian::index(build, &apt_get, package, suites)?;
            Ok(in_index(&index, package))
        }
    }
}

/// What the folder of `url` lists, with the hash of the newest.
fn address(build: &Build, source: &Source, url: &str) -> Result<Vec<Offer>> {
    let (folder, file) = url.rsplit_once('/').context("has no folder")?;
    let (before, behind) =
        file.split_once(&source.version).context("its file name does not hold the version")?;
    let listing = fetch::text(build, &format!("{folder}/")).context("its folder can't be listed")?;
    let mut offers: Vec<Offer> = versions(&listing, before, behind)
        .into_iter()
        .map(|version| Offer {
            file: format!("{before}{version}{behind}"),
            version,
            sha256: None,
            hash_from: String::new(),
        })
        .collect();
    // The newest of the pinned version's series is the one that is most likely taken.
    for offer in &mut offers {
        if numbers(&offer.version) <= numbers(&source.version) {
            continue;
        }
        for hashes in ["sha256sums.asc".to_owned(), format!("{}.sha256", offer.file)] {
            let Ok(text) = fetch::text(build, &format!("{folder}/{hashes}")) else { continue };
            if let Some(sha256) = hash_in(&text, &offer.file) {
                (offer.sha256, offer.hash_from) = (Some(sha256), format!("{folder}/{hashes}"));
                break;
            }
        }
    }
    Ok(offers)
}

/// Versions in a listing: digits and dots between `before` and `behind`.
fn versions(listing: &str, before: &str, behind: &str) -> Vec<String> {
    let mut found: Vec<String> = listing
        .split(before)
        .skip(1)
        .filter_map(|rest| {
            let length = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
            // The dot before the suffix may have been taken for one of the version's.
            let version = rest[..length].trim_end_matches('.');
            rest[version.len()..].starts_with(behind).then(|| version.to_owned())
        })
        .filter(|version| !version.is_empty())
        .collect();
    found.sort_by_key(|version| numbers(version));
    found.dedup();
    found
}

/// The hash on the line of a hash list that names `file`.
fn hash_in(text: &str, file: &str) -> Option<String> {
    let is_hash = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let hash = words.next().filter(is_hash)?;
        (words.next()?.trim_start_matches('*') == file).then(|| hash.to_ascii_lowercase())
    })
}

/// The upstream tarballs that Debian's index lists.
fn in_index(index: &str, package: &str) -> Vec<Offer> {
    let before = format!("{package}_");
    let mut offers: Vec<Offer> = index
        .lines()
        .filter_map(|line| {
            let [sha256, _, file] = line.strip_prefix(' ')?.split_whitespace().collect::<Vec<_>>()[..] else {
                return None;
            };
            let (version, kind) = file.strip_prefix(&before)?.split_once(".orig.tar.")?;
            (sha256.len() == 64 && !kind.contains('.')).then(|| Offer {
                version: version.to_owned(),
                file: file.to_owned(),
                sha256: Some(sha256.to_owned()),
                hash_from: "Debian's signed Sources index".to_owned(),
            })
        })
        .collect();
    offers.sort_by(|one, other| one.file.cmp(&other.file));
    offers.dedup();
    offers
}

/// A version's numbers, for comparing.
pub fn numbers(version: &str) -> Vec<u64> {
    version.split(|letter: char| !letter.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_a_listing() {
        let listing = "<a href=\"x-1.10.tar.xz\">x-1.10.tar.xz</a> <a href=\"x-1.9.tar.xz\"> x-1.9.tar.sign x-.tar.xz x-1.9.1-rc1.tar.xz";
        assert_eq!(versions(listing, "x-", ".tar.xz"), ["1.9", "1.10"]);
    }

    #[test]
    fn a_hash_is_the_one_of_that_file() {
        let (one, other) = ("a".repeat(64), "B".repeat(64));
        let text = format!("-----BEGIN PGP SIGNED MESSAGE-----\n{one}  x-1.tar.xz\n{other} *x-2.tar.xz\n");
        assert_eq!(hash_in(&text, "x-2.tar.xz").unwrap(), "b".repeat(64));
        assert_eq!(hash_in(&text, "x-3.tar.xz"), None);
    }

    #[test]
    fn debians_index_offers_upstream_tarballs_alone() {
        let hash = "c".repeat(64);
        let index = format!(
            "Package: tini\nChecksums-Sha256:\n {hash} 5 tini_0.20.0.orig.tar.gz\n {hash} 5 tini_0.20.0-1.debian.tar.xz\n {hash} 5 tini_0.20.0.orig.tar.gz.asc\nFiles:\n dd 5 tini_0.20.0.orig.tar.gz\n"
        );
        let offers = in_index(&index, "tini");
        assert_eq!(
            (offers.len(), offers[0].version.as_str(), offers[0].sha256.as_ref()),
            (1, "0.20.0", Some(&hash))
        );
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert!(numbers("6.12.100") > numbers("6.12.95") && numbers("1.37.0") > numbers("1.36.1"));
    }
}
