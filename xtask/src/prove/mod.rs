//! What the image is made of, in the forms that others read. In: a whole image. Out: `Materials`, and from it two bills
//! of materials and a statement of provenance. Must never: hold a time, a random number or a path of this machine: the
//! same image has the same papers.

pub mod cyclonedx;
pub mod differ;
#[cfg(test)]
mod judged;
pub mod materials;
pub mod provenance;
pub mod record;
pub mod second;
pub mod sign;
pub mod spdx;

pub use materials::Materials;

/// A UUID that belongs to `text` and to nothing else (RFC 9562, version 8: its bits are ours to choose).
fn uuid(text: &str) -> String {
    let digits = crate::artifact::sha256_bytes(text.as_bytes());
    format!(
        "{}-{}-8{}-8{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[13..16],
        &digits[17..20],
        &digits[20..32]
    )
}

/// Seconds since 1970 as RFC 3339 has them, in UTC.
fn rfc3339(epoch: u64) -> String {
    let date = crate::stage::iso::volume_date(epoch);
    let part = |from: usize, to: usize| &date[from..to];
    format!("{}-{}-{}T{}:{}:{}Z", part(0, 4), part(4, 6), part(6, 8), part(8, 10), part(10, 12), part(12, 14))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_has_its_form_and_belongs_to_its_text() {
        let one = uuid("a");
        let lengths: Vec<usize> = one.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!((&one[14..15], &one[19..20]), ("8", "8"));
        assert_eq!((one == uuid("a"), one == uuid("b")), (true, false));
    }

    #[test]
    fn the_epoch_is_a_date() {
        assert_eq!(rfc3339(1_793_491_200), "2026-11-01T00:00:00Z");
    }
}
