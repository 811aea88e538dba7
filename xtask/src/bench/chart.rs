//! Phases -> a timeline as SVG. In: rows of named bars in seconds. Out: the picture. Must never: hide a bar that is too
//! narrow for its name: the name then stands behind it.

/// A bar of a row.
#[derive(Debug, Clone)]
pub struct Bar {
    /// What it is.
    pub name: String,
    /// When it begins, in seconds.
    pub begin: f64,
    /// How long it takes.
    pub length: f64,
}

/// A heading, and its bars, each on a line of its own.
#[derive(Debug)]
pub struct Row {
    /// What the bars are of.
    pub title: String,
    /// The bars.
    pub bars: Vec<Bar>,
}

const WIDTH: f64 = 1000.0;
const LINE: f64 = 20.0;

/// The picture, its scale so that the latest end fits.
pub fn svg(rows: &[Row]) -> String {
    let end = rows.iter().flat_map(|row| &row.bars).map(|bar| bar.begin + bar.length).fold(0.001, f64::max);
    let scale = (WIDTH - 320.0) / end;
    let lines: usize = rows.iter().map(|row| row.bars.len() + 2).sum();
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {}\" font-family=\"sans-serif\" font-size=\"12\">\n",
        lines as f64 * LINE
    );
    let mut y = LINE;
    for row in rows {
        out += &format!("<text x=\"10\" y=\"{y}\" font-size=\"14\">{}</text>\n", escaped(&row.title));
        y += LINE;
        for (bar, colour) in row.bars.iter().zip(["#9ecae1", "#a1d99b", "#fdae6b", "#bcbddc"].iter().cycle())
        {
            let (x, width) = (10.0 + bar.begin * scale, (bar.length * scale).max(1.0));
            out += &format!(
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"16\" fill=\"{colour}\"/>\n<text x=\"{:.1}\" y=\"{y:.1}\">{}: {:.3} s</text>\n",
                y - 13.0,
                x + width + 4.0,
                escaped(&bar.name),
                bar.length
            );
            y += LINE;
        }
        y += LINE;
    }
    out + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_has_its_place_and_its_name() {
        let bar = |name: &str, begin, length| Bar { name: name.to_owned(), begin, length };
        let picture =
            svg(&[Row { title: "boot".to_owned(), bars: vec![bar("a<b", 0.0, 1.0), bar("c", 1.0, 1.0)] }]);
        assert!(picture.contains("a&lt;b: 1.000 s") && picture.contains("<rect x=\"350.0\""), "{picture}");
    }
}
