//! Lines on two axes as SVG: enough for the curves of a report, readable without scripts.
//!
//! In: points in their own units. Out: one `<svg>`. Points outside the axes are moved to their edge; with a logarithmic axis
//! a zero stands at its lower end.

use std::fmt::Write;

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 330.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 46.0;

/// How values lie on an axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// Evenly, with so many steps.
    Linear(u32),
    /// By powers of ten.
    Log,
}

/// One axis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    pub(super) name: &'static str,
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) scale: Scale,
}

impl Axis {
    /// Where a value lies between both ends, in [0, 1].
    fn place(&self, value: f64) -> f64 {
        let value = if value.is_finite() { value.clamp(self.from, self.to) } else { self.from };
        match self.scale {
            Scale::Linear(_) => (value - self.from) / (self.to - self.from),
            Scale::Log => (value / self.from).log10() / (self.to / self.from).log10(),
        }
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear(steps) => {
                (0..=steps).map(|step| self.from + (self.to - self.from) * f64::from(step) / f64::from(steps)).collect()
            }
            Scale::Log => {
                let first = self.from.log10().round() as i32;
                (first..=self.to.log10().round() as i32).map(|power| 10f64.powi(power)).collect()
            }
        }
    }

    fn label(&self, value: f64) -> String {
        match self.scale {
            Scale::Linear(_) => format!("{}", (value * 1e4).round() / 1e4),
            Scale::Log => format!("{value:e}"),
        }
    }
}

/// One line with its name.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    pub(super) colour: &'static str,
    pub(super) points: Vec<(f64, f64)>,
}

/// Draws lines; `marks` are single points with a name, such as operating points.
pub(super) fn chart(title: &str, axes: (Axis, Axis), lines: &[Line<'_>], marks: &[(String, f64, f64)]) -> String {
    let x = |value: f64| LEFT + axes.0.place(value) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - axes.1.place(value) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#, super::escaped(title));
    let mut put = |text: String| {
        svg.push_str(&text);
        svg.push('\n');
    };
    for tick in axes.0.ticks() {
        put(format!(r#"<path class="grid" d="M{0:.1} {TOP}V{1}"/>"#, x(tick), HEIGHT - BOTTOM));
        put(format!(
            r#"<text x="{:.1}" y="{}" text-anchor="middle">{}</text>"#,
            x(tick),
            HEIGHT - BOTTOM + 16.0,
            axes.0.label(tick)
        ));
    }
    for tick in axes.1.ticks() {
        put(format!(r#"<path class="grid" d="M{LEFT} {:.1}H{}"/>"#, y(tick), WIDTH - RIGHT));
        put(format!(
            r#"<text x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
            LEFT - 6.0,
            y(tick) + 4.0,
            axes.1.label(tick)
        ));
    }
    put(format!(
        r#"<text x="{:.1}" y="{}" text-anchor="middle">{}</text>"#,
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 8.0,
        axes.0.name
    ));
    put(format!(
        r#"<text transform="translate(14 {:.1}) rotate(-90)" text-anchor="middle">{}</text>"#,
        (TOP + HEIGHT - BOTTOM) / 2.0,
        axes.1.name
    ));
    for (index, line) in lines.iter().enumerate() {
        let points = line.points.iter().fold(String::new(), |mut text, (at, value)| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{:.1},{:.1} ", x(*at), y(*value));
            text
        });
        put(format!(
            r#"<polyline points="{}" fill="none" stroke="{}" stroke-width="1.8"/>"#,
            points.trim_end(),
            line.colour
        ));
        if lines.len() > 1 {
            let row = TOP + 14.0 + 16.0 * index as f64;
            put(format!(r#"<path d="M{} {row}h20" stroke="{}" stroke-width="1.8"/>"#, LEFT + 10.0, line.colour));
            put(format!(r#"<text x="{}" y="{}">{}</text>"#, LEFT + 36.0, row + 4.0, super::escaped(line.name)));
        }
    }
    for (name, at, value) in marks {
        put(format!(r##"<circle cx="{:.1}" cy="{:.1}" r="3.5" fill="#c0392b"/>"##, x(*at), y(*value)));
        put(format!(r#"<text x="{:.1}" y="{:.1}">{}</text>"#, x(*at) + 7.0, y(*value) - 5.0, super::escaped(name)));
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: Axis = Axis { name: "share", from: 0.0, to: 1.0, scale: Scale::Linear(4) };
    const RATE: Axis = Axis { name: "rate", from: 1e-6, to: 1.0, scale: Scale::Log };

    #[test]
    fn axes_place_their_ends_and_what_lies_beyond() {
        for axis in [SHARE, RATE] {
            assert_eq!((axis.place(axis.from), axis.place(axis.to)), (0.0, 1.0));
            assert_eq!((axis.place(-1.0), axis.place(2.0), axis.place(f64::NAN)), (0.0, 1.0, 0.0));
        }
        assert!((RATE.place(1e-3) - 0.5).abs() < 1e-12);
        assert_eq!(RATE.ticks().len(), 7);
        assert_eq!(SHARE.label(0.25), "0.25");
    }

    #[test]
    fn names_cannot_break_out_of_the_page() {
        let line = Line { name: "<script>", colour: "#000", points: vec![(0.0, 0.5)] };
        let other = Line { name: "b", colour: "#000", points: Vec::new() };
        let drawn = chart("a\"b", (SHARE, RATE), &[line, other], &[("<b>".to_owned(), 0.5, 0.5)]);
        assert!(!drawn.contains("<script>") && !drawn.contains("<b>") && !drawn.contains("a\"b"), "{drawn}");
        assert!(drawn.ends_with("</svg>"));
    }
}
