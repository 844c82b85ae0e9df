//! Line plots as SVG text. Pure: points in, a picture out; colours come from the page's style (`.s0`, `.s1` …).
//!
//! What is no number, or below [`LEAST`] on a logarithmic axis, is left out of its line.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
/// Room for the labels of the axes.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;
/// Lines of a plot that differ in colour; further ones start again.
pub(super) const COLOURS: usize = 6;
/// About as many labels as fit beside an axis.
const TICKS: f64 = 8.0;
/// Nothing that is measured here is smaller; it bounds the labels of an axis.
const LEAST: f64 = 1e-9;

/// How an axis maps its values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scale {
    /// From zero.
    Linear,
    /// By powers of ten.
    Log,
    /// Quantiles: `x` is 1/(1-p), shown by its percentile.
    Quantile,
}

/// A line.
pub(super) struct Line {
    /// What the legend says.
    pub name: String,
    /// Which colour.
    pub colour: usize,
    /// Dashes tell lines of one colour apart: 0 is solid.
    pub dash: usize,
    /// In order.
    pub points: Vec<(f64, f64)>,
}

/// A plot.
pub(super) struct Plot<'a> {
    /// What a reader who does not see the picture is told.
    pub title: &'a str,
    /// What is across.
    pub x: (&'a str, Scale),
    /// What is up.
    pub y: (&'a str, Scale),
    /// What is drawn.
    pub lines: Vec<Line>,
}

/// An axis with its bounds, mapped to pixels.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn fit(scale: Scale, values: impl Iterator<Item = f64>, (from, to): (f64, f64)) -> Axis {
        let usable = values.filter(|&value| shown(scale, value));
        let (low, high) = usable.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = match scale {
            Scale::Linear => (0.0, if high > LEAST { high * 1.05 } else { 1.0 }),
            Scale::Quantile => (1.0, if high > 10.0 { high } else { 10.0 }),
            Scale::Log if low > high => (0.1, 10.0),
            Scale::Log => (10_f64.powf(low.log10().floor()), 10_f64.powf((high * 1.0001).log10().ceil())),
        };
        Axis { scale, low, high, from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log | Scale::Quantile => (value / self.low).log10() / (self.high / self.low).log10(),
        };
        self.from + share * (self.to - self.from)
    }

    /// Values with their labels.
    fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Linear => {
                let step = round_step(self.high / TICKS);
                let count = (self.high / step) as usize;
                (0..=count).map(|n| n as f64 * step).map(|value| (value, number(value, step))).collect()
            }
            Scale::Log | Scale::Quantile => {
                let decades = (self.high / self.low).log10().round() as i32;
                let first = self.low.log10().round() as i32;
                let label = |power: i32| {
                    let value = 10_f64.powi(power);
                    let label = if self.scale == Scale::Log { number(value, value) } else { percentile(power) };
                    (value, label)
                };
                (first..=first + decades).map(label).filter(|(value, _)| *value <= self.high * 1.0001).collect()
            }
        }
    }
}

fn shown(scale: Scale, value: f64) -> bool {
    value.is_finite() && (scale == Scale::Linear || value > LEAST)
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].iter().map(|factor| factor * power).find(|step| *step >= least).unwrap_or(10.0 * power)
}

/// With as many decimals as `step` needs.
fn number(value: f64, step: f64) -> String {
    let decimals = if step >= 1.0 { 0 } else { (-step.log10()).ceil() as usize };
    format!("{value:.decimals$}")
}

/// 0 → 0 %, 1 → 90 %, 3 → 99.9 %.
fn percentile(power: i32) -> String {
    match power {
        ..=0 => "0 %".to_owned(),
        1 => "90 %".to_owned(),
        2 => "99 %".to_owned(),
        more => format!("99.{} %", "9".repeat(more as usize - 2)),
    }
}

/// Text as it may stand in HTML and SVG, in attributes too.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

const WRITES: &str = "writing to a string";

impl Plot<'_> {
    /// The picture and its legend.
    pub(super) fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| line.points.iter());
        let across = Axis::fit(self.x.1, points().map(|point| point.0), (LEFT, WIDTH - RIGHT));
        let up = Axis::fit(self.y.1, points().map(|point| point.1), (HEIGHT - BOTTOM, TOP));
        let mut out = String::new();
        let title = escaped(self.title);
        write!(out, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">").expect(WRITES);
        self.grid(&mut out, &across, &up);
        for line in &self.lines {
            draw(&mut out, line, &across, &up);
        }
        out.push_str("</svg>\n<p class=\"legend\">");
        for line in &self.lines {
            let (colour, dash) = (line.colour % COLOURS, line.dash);
            let name = escaped(&line.name);
            write!(
                out,
                "<span><svg class=\"key\" viewBox=\"0 0 24 8\"><path class=\"line s{colour} d{dash}\" d=\"M0 4H24\"/></svg> {name}</span> "
            )
            .expect(WRITES);
        }
        out.push_str("</p>\n");
        out
    }

    fn grid(&self, out: &mut String, across: &Axis, up: &Axis) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for (value, label) in up.ticks() {
            let y = up.place(value);
            write!(
                out,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                LEFT - 6.0,
                y + 4.0
            )
            .expect(WRITES);
        }
        for (value, label) in across.ticks() {
            let x = across.place(value);
            write!(
                out,
                "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                bottom + 16.0
            )
            .expect(WRITES);
        }
        let (x, y) = (escaped(self.x.0), escaped(self.y.0));
        write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{x}</text><text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{y}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 8.0,
            (TOP + bottom) / 2.0
        )
        .expect(WRITES);
    }
}

fn draw(out: &mut String, line: &Line, across: &Axis, up: &Axis) {
    let usable = line.points.iter().filter(|(x, y)| shown(across.scale, *x) && shown(up.scale, *y));
    let mut path = String::new();
    for (x, y) in usable {
        let step = if path.is_empty() { 'M' } else { 'L' };
        write!(path, "{step}{:.1} {:.1}", across.place(*x), up.place(*y)).expect(WRITES);
    }
    if !path.is_empty() {
        let (colour, dash) = (line.colour % COLOURS, line.dash);
        write!(out, "<path class=\"line s{colour} d{dash}\" d=\"{path}\"/>").expect(WRITES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(scale: Scale, values: &[f64]) -> Vec<String> {
        Axis::fit(scale, values.iter().copied(), (0.0, 1.0)).ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn axes_are_labelled_with_round_numbers_and_percentiles() {
        assert_eq!(labels(Scale::Linear, &[0.0, 3.5]), ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5", "3.0", "3.5"]);
        assert_eq!(labels(Scale::Log, &[0.2, 35.0]), ["0.1", "1", "10", "100"]);
        assert_eq!(labels(Scale::Quantile, &[1.0, 5_000.0]), ["0 %", "90 %", "99 %", "99.9 %"]);
    }

    #[test]
    fn names_cannot_break_out_of_the_picture() {
        let line = Line { name: "<script>&\"'".to_owned(), colour: 7, dash: 0, points: vec![(1.0, 1.0)] };
        let plot = Plot { title: "a\"b", x: ("s", Scale::Linear), y: ("<ms>", Scale::Log), lines: vec![line] };
        let svg = plot.svg();
        assert!(svg.contains("&lt;script&gt;&amp;&quot;&#39;") && !svg.contains("<script"), "{svg}");
        assert!(svg.contains("aria-label=\"a&quot;b\"") && svg.contains("s1"), "{svg}");
    }

    proptest! {
        #[test]
        fn whatever_is_drawn_lies_within_the_picture(
            points in proptest::collection::vec((proptest::num::f64::ANY, proptest::num::f64::ANY), 0..20),
            log in any::<bool>(),
        ) {
            let points: Vec<_> = points.iter().map(|&(x, y)| (x.abs().min(1e12), y.abs().min(1e12))).collect();
            let scale = if log { Scale::Log } else { Scale::Linear };
            for axis in [
                Axis::fit(scale, points.iter().map(|point| point.0), (0.0, 1.0)),
                Axis::fit(scale, points.iter().map(|point| point.1), (0.0, 1.0)),
            ] {
                for (value, _) in axis.ticks() {
                    prop_assert!((-0.001..=1.001).contains(&axis.place(value)));
                }
            }
            let across = Axis::fit(scale, points.iter().map(|point| point.0), (0.0, 1.0));
            for (x, _) in points.iter().filter(|point| shown(scale, point.0)) {
                prop_assert!((-0.001..=1.001).contains(&across.place(*x)), "{}", x);
            }
        }
    }
}
