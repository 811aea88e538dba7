//! Patterns of tuning's allow list: regular expressions of the extended kind, without counts (`{2,3}`) and classes by name.
//!
//! In: a pattern, a text. Out: whether the pattern fits anywhere in the text. Must never: take what it does not
//! understand for something else; it says so.

/// A pattern, read.
#[derive(Debug, Clone)]
pub struct Pattern {
    choices: Vec<Vec<Piece>>,
}

#[derive(Debug, Clone)]
struct Piece {
    atom: Atom,
    min: usize,
    max: usize,
}

#[derive(Debug, Clone)]
enum Atom {
    Char(char),
    Any,
    Class { chars: Vec<(char, char)>, inverted: bool },
    Start,
    End,
    Group(Vec<Vec<Piece>>),
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What in it is not understood.
    pub fn parse(text: &str) -> Result<Pattern, String> {
        let chars: Vec<char> = text.chars().collect();
        let mut at = 0;
        let choices = parse_choices(&chars, &mut at)?;
        if at < chars.len() { Err("a ')' too many".into()) } else { Ok(Pattern { choices }) }
    }

    /// Whether it fits somewhere in `text`.
    pub fn fits(&self, text: &str) -> bool {
        let chars: Vec<char> = text.chars().collect();
        (0..=chars.len()).any(|start| choices_fit(&self.choices, &chars, start, &mut |_| true))
    }
}

fn parse_choices(chars: &[char], at: &mut usize) -> Result<Vec<Vec<Piece>>, String> {
    let mut choices = vec![Vec::new()];
    while let Some(&char) = chars.get(*at) {
        if char == ')' {
            break;
        }
        *at += 1;
        let atom = match char {
            '|' => {
                choices.push(Vec::new());
                continue;
            }
            '.' => Atom::Any,
            '^' => Atom::Start,
            '$' => Atom::End,
            '(' => {
                let group = parse_choices(chars, at)?;
                if chars.get(*at) != Some(&')') {
                    return Err("a ')' is missing".into());
                }
                *at += 1;
                Atom::Group(group)
            }
            '[' => parse_class(chars, at)?,
            '\\' => parse_escape(chars, at)?,
            '*' | '+' | '?' => return Err(format!("{char:?} follows nothing")),
            '{' => return Err("'{' is not understood; write \\{ for the character".into()),
            other => Atom::Char(other),
        };
        let (min, max) = match chars.get(*at) {
            Some('*') => (0, usize::MAX),
            Some('+') => (1, usize::MAX),
            Some('?') => (0, 1),
            _ => (1, 1),
        };
        *at += usize::from((min, max) != (1, 1));
        if let Some(last) = choices.last_mut() {
            last.push(Piece { atom, min, max });
        }
    }
    Ok(choices)
}

fn parse_escape(chars: &[char], at: &mut usize) -> Result<Atom, String> {
    let char = *chars.get(*at).ok_or("it ends in '\\'")?;
    *at += 1;
    let class = |chars: &[(char, char)]| Atom::Class { chars: chars.to_vec(), inverted: false };
    match char {
        'd' => Ok(class(&[('0', '9')])),
        'w' => Ok(class(&[('0', '9'), ('A', 'Z'), ('a', 'z'), ('_', '_')])),
        letter if letter.is_alphanumeric() => Err(format!("'\\{letter}' is not understood")),
        other => Ok(Atom::Char(other)),
    }
}

fn parse_class(chars: &[char], at: &mut usize) -> Result<Atom, String> {
    let inverted = chars.get(*at) == Some(&'^');
    *at += usize::from(inverted);
    let mut ranges = Vec::new();
    loop {
        let mut next = || {
            let char = chars.get(*at).copied().ok_or("a ']' is missing");
            *at += 1;
            char
        };
        let char = match next()? {
            ']' if !ranges.is_empty() => return Ok(Atom::Class { chars: ranges, inverted }),
            '\\' => next()?,
            other => other,
        };
        let is_range = chars.get(*at) == Some(&'-') && chars.get(*at + 1).is_some_and(|end| *end != ']');
        let end = if is_range { chars[*at + 1] } else { char };
        *at += 2 * usize::from(is_range);
        ranges.push((char, end));
    }
}

type Rest<'a> = &'a mut dyn FnMut(usize) -> bool;

fn choices_fit(choices: &[Vec<Piece>], text: &[char], at: usize, rest: Rest<'_>) -> bool {
    choices.iter().any(|pieces| pieces_fit(pieces, text, at, rest))
}

fn pieces_fit(pieces: &[Piece], text: &[char], at: usize, rest: Rest<'_>) -> bool {
    match pieces.split_first() {
        None => rest(at),
        Some((piece, after)) => piece_fits(piece, 0, after, text, at, rest),
    }
}

/// `done` times the piece has fitted already; as often as can be comes first.
fn piece_fits(piece: &Piece, done: usize, after: &[Piece], text: &[char], at: usize, rest: Rest<'_>) -> bool {
    if done < piece.max {
        let mut once_more = |end: usize| {
            // What fits nothing would fit nothing for ever.
            (end > at || done < piece.min) && piece_fits(piece, done + 1, after, text, end, rest)
        };
        if atom_fits(&piece.atom, text, at, &mut once_more) {
            return true;
        }
    }
    done >= piece.min && pieces_fit(after, text, at, rest)
}

fn atom_fits(atom: &Atom, text: &[char], at: usize, rest: Rest<'_>) -> bool {
    let is_char = |fits: &dyn Fn(char) -> bool| text.get(at).is_some_and(|char| fits(*char));
    let fits = match atom {
        Atom::Group(choices) => return choices_fit(choices, text, at, rest),
        Atom::Start => return at == 0 && rest(at),
        Atom::End => return at == text.len() && rest(at),
        Atom::Any => is_char(&|_| true),
        Atom::Char(wanted) => is_char(&|char| char == *wanted),
        Atom::Class { chars, inverted } => {
            is_char(&|char| chars.iter().any(|(from, to)| (*from..=*to).contains(&char)) != *inverted)
        }
    };
    fits && rest(at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_regular_expressions_do() {
        for (pattern, text, fits) in [
            (r"^net\.ipv4\.conf\.eth0\.accept_redirects$", "net.ipv4.conf.eth0.accept_redirects", true),
            (r"^net\.ipv4\.conf\.eth0\.accept_redirects$", "net.ipv4.conf.eth1.accept_redirects", false),
            (r"^net\.ipv4\.conf\.IFNAME\.[a-z_]*$", "net.ipv4.conf.IFNAME.arp_filter", true),
            (r"^net\.ipv4\.conf\.IFNAME\.[a-z_]*$", "net.ipv4.conf.IFNAME.arp.filter", false),
            ("ipv[46]", "net.ipv6.conf", true),
            ("^(net|kernel)/core/.+x$", "net/core/somax", true),
            ("^(net|kernel)/core/.+x$", "vm/core/somax", false),
            ("a(bc)*d", "xabcbcdx", true),
            ("a(bc)+d", "ad", false),
            ("^[^.]+$", "a.b", false),
            ("()*a", "a", true),
            (r"^eth\d+-?$", "eth10-", true),
            ("", "anything", true),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().fits(text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_told() {
        for pattern in ["(a", "a)", "*", "a{2}", "[a", r"a\", r"\s"] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
    }
}
