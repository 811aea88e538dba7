//! Names with bytes -> an SVG in which areas are bytes. In: groups of items. Out: one panel a group. Must never: show an
//! area that is not to the scale of its panel, which says what it is of.

use std::fmt::Write;

/// What one panel shows.
#[derive(Debug)]
pub struct Panel {
    /// Its heading.
    pub title: String,
    /// Names and bytes.
    pub items: Vec<(String, u64)>,
}

/// A rectangle of the picture.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Area {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

const PANEL: Area = Area { x: 10.0, y: 30.0, width: 560.0, height: 400.0 };
const COLOURS: [&str; 8] =
    ["#9ecae1", "#a1d99b", "#fdae6b", "#bcbddc", "#fc9272", "#c7e9c0", "#fdd0a2", "#c6dbef"];

/// The picture.
pub fn svg(panels: &[Panel]) -> String {
    let width = panels.len() as f64 * (PANEL.width + 20.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} 440\" font-family=\"sans-serif\" font-size=\"11\">\n"
    );
    for (panel, index) in panels.iter().zip(0_u32..) {
        let left = f64::from(index) * (PANEL.width + 20.0);
        let total: u64 = panel.items.iter().map(|(_, bytes)| bytes).sum();
        line(
            &mut out,
            format_args!(
                "<text x=\"{}\" y=\"20\" font-size=\"14\">{}: {total} bytes</text>",
                left + 10.0,
                escaped(&panel.title)
            ),
        );
        let mut items: Vec<&(String, u64)> = panel.items.iter().filter(|(_, bytes)| *bytes > 0).collect();
        items.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        let sizes: Vec<f64> = items.iter().map(|(_, bytes)| *bytes as f64).collect();
        let areas = squarified(&sizes, Area { x: left + PANEL.x, ..PANEL });
        for ((item, area), colour) in items.iter().zip(areas).zip(COLOURS.iter().cycle()) {
            rectangle(&mut out, item, area, colour);
        }
    }
    out + "</svg>\n"
}

fn rectangle(out: &mut String, (name, bytes): &(String, u64), area: Area, colour: &str) {
    let name = escaped(name);
    line(
        out,
        format_args!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\" stroke=\"white\"><title>{name}: {bytes} bytes</title></rect>",
            area.x, area.y, area.width, area.height
        ),
    );
    // A letter is some 6.5 wide; what does not fit is still told by the pointer.
    if area.height > 14.0 && area.width > name.chars().count() as f64 * 6.5 {
        line(out, format_args!("<text x=\"{:.1}\" y=\"{:.1}\">{name}</text>", area.x + 3.0, area.y + 12.0));
    }
}

fn line(out: &mut String, text: std::fmt::Arguments) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Areas in proportion to `sizes` (falling, none zero) that fill `room` and are as square as rows allow (Bruls, Huizing and
/// van Wijk's algorithm).
fn squarified(sizes: &[f64], room: Area) -> Vec<Area> {
    let (mut areas, mut rest, mut room) = (Vec::with_capacity(sizes.len()), sizes, room);
    while !rest.is_empty() {
        let total: f64 = rest.iter().sum();
        let scale = room.width * room.height / total;
        let side = room.width.min(room.height);
        let worst = |count: usize| {
            let sum: f64 = rest[..count].iter().sum::<f64>() * scale;
            let (largest, smallest) = (rest[0] * scale, rest[count - 1] * scale);
            (side * side * largest / (sum * sum)).max(sum * sum / (side * side * smallest))
        };
        let count = (1..rest.len()).find(|&count| worst(count + 1) > worst(count)).unwrap_or(rest.len());
        let (row, later) = rest.split_at(count);
        let sum: f64 = row.iter().sum::<f64>() * scale;
        let thickness = sum / side;
        let mut along = 0.0;
        for size in row {
            let length = size * scale / thickness;
            areas.push(if room.width >= room.height {
                Area { x: room.x, y: room.y + along, width: thickness, height: length }
            } else {
                Area { x: room.x + along, y: room.y, width: length, height: thickness }
            });
            along += length;
        }
        if room.width >= room.height {
            room = Area { x: room.x + thickness, width: room.width - thickness, ..room };
        } else {
            room = Area { y: room.y + thickness, height: room.height - thickness, ..room };
        }
        rest = later;
    }
    areas
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_in_proportion_and_fill_the_room() {
        let room = Area { x: 1.0, y: 2.0, width: 6.0, height: 4.0 };
        let sizes = [6.0, 6.0, 4.0, 3.0, 2.0, 2.0, 1.0];
        let areas = squarified(&sizes, room);
        for (size, area) in sizes.iter().zip(&areas) {
            assert!((area.width * area.height - size).abs() < 1e-9, "{area:?} is not {size}");
            assert!(area.x >= 1.0 && area.y >= 2.0);
            assert!(area.x + area.width < 7.0 + 1e-9 && area.y + area.height < 6.0 + 1e-9);
        }
        // As the paper has it: the first two stand one above the other.
        assert_eq!((areas[0].x, areas[1].x), (1.0, 1.0));
    }

    #[test]
    fn a_picture_names_each_item_and_passes_over_empty_ones() {
        let items = vec![("a<b".to_owned(), 3), ("empty".to_owned(), 0)];
        let picture = svg(&[Panel { title: "x".to_owned(), items }]);
        assert!(
            picture.contains("<title>a&lt;b: 3 bytes</title>") && !picture.contains("empty"),
            "{picture}"
        );
        assert!(picture.contains("x: 3 bytes") && picture.ends_with("</svg>\n"));
    }
}
