//! Charts as SVG: panels with lines, one below the other, over the same time.
//!
//! Does not depend on the meaning of the lines.

use std::path::Path;

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

/// Size of the picture, and of its parts.
const WIDTH: u32 = 960;
const TITLE: u32 = 56;
const PANEL: u32 = 200;
const PANEL_HEAD: u32 = 26;
const FOOT: u32 = 24;

const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(0x1f, 0x29, 0x33);
const FAINT: RGBColor = RGBColor(0x6b, 0x77, 0x85);
const GRID: RGBColor = RGBColor(0xe3, 0xe8, 0xee);

/// A chart was not drawn.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChartError {
    #[error("lay out the chart: {0}")]
    Layout(String),
    #[error("write it")]
    Write(#[from] std::io::Error),
}

/// Why plotters could not draw. Its errors have a type for each backend.
fn layout(error: impl std::fmt::Display) -> ChartError {
    ChartError::Layout(error.to_string())
}

/// A picture.
pub(crate) struct Chart {
    pub(crate) title: String,
    /// A line below the title.
    pub(crate) subtitle: String,
    pub(crate) panels: Vec<Panel>,
    /// The label of the time axis.
    pub(crate) caption: &'static str,
    /// The end of the time axis.
    pub(crate) end: f64,
}

/// A line of a panel.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) colour: RGBColor,
    pub(crate) points: Vec<(f64, f64)>,
    /// Whether it is drawn in steps, and filled below.
    pub(crate) is_filled: bool,
}

/// One panel of a chart.
pub(crate) struct Panel {
    /// The quantity, and its unit.
    pub(crate) heading: &'static str,
    pub(crate) lines: Vec<Line>,
    /// The text in place of lines, if there are none.
    pub(crate) nothing: &'static str,
}

/// Draws a chart into a file.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn draw(file: &Path, chart: &Chart) -> Result<(), ChartError> {
    std::fs::write(file, svg(chart)?)?;
    Ok(())
}

pub(crate) fn svg(chart: &Chart) -> Result<String, ChartError> {
    let panels = &chart.panels;
    let height = TITLE + PANEL * panels.len() as u32 + FOOT;
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE).map_err(layout)?;
        let (head, rest) = root.split_vertically(TITLE);
        heading(&head, chart)?;
        let (body, foot) = rest.split_vertically(PANEL * panels.len() as u32);
        let end = chart.end.max(1.0);
        for (area, panel) in body.split_evenly((panels.len(), 1)).iter().zip(panels) {
            draw_panel(area, panel, end)?;
        }
        let caption = font(13, FAINT).pos(Pos::new(HPos::Center, VPos::Top));
        let caption_at = ((WIDTH / 2) as i32, 2);
        foot.draw_text(chart.caption, &caption, caption_at)
            .map_err(layout)?;
        root.present().map_err(layout)?;
    }
    Ok(text)
}

fn font(size: u32, colour: RGBColor) -> TextStyle<'static> {
    (FONT, size).into_font().color(&colour)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn heading(area: &Area<'_>, chart: &Chart) -> Result<(), ChartError> {
    let left = |style: TextStyle<'static>| style.pos(Pos::new(HPos::Left, VPos::Top));
    area.draw_text(&chart.title, &left(font(18, INK)), (16, 12))
        .map_err(layout)?;
    area.draw_text(&chart.subtitle, &left(font(13, FAINT)), (16, 34))
        .map_err(layout)
}

fn draw_panel(area: &Area<'_>, panel: &Panel, end: f64) -> Result<(), ChartError> {
    let points = panel.lines.iter().flat_map(|line| &line.points);
    let highest = points.fold(0.0_f64, |highest, (_, value)| highest.max(*value));
    let top = if highest > 0.0 { highest * 1.15 } else { 1.0 };
    let mut chart = ChartBuilder::on(area)
        .margin_top(PANEL_HEAD)
        .margin_right(20)
        .x_label_area_size(24)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..end, 0.0..top)
        .map_err(layout)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(FAINT)
        .label_style(font(12, INK))
        .y_labels(5)
        .x_labels(12)
        .x_label_formatter(&|x| number(*x))
        .y_label_formatter(&|y| number(*y))
        .draw()
        .map_err(layout)?;
    for line in &panel.lines {
        let stroke = line.colour.stroke_width(2);
        if line.is_filled {
            let area = AreaSeries::new(stepped(&line.points), 0.0, line.colour.mix(0.18));
            chart
                .draw_series(area.border_style(stroke))
                .map_err(layout)?;
        } else {
            let points = line.points.iter().copied();
            chart
                .draw_series(LineSeries::new(points, stroke))
                .map_err(layout)?;
        }
    }
    panel_head(area, panel)
}

/// Heading and legend, above the lines, so that they hide none of them.
fn panel_head(area: &Area<'_>, panel: &Panel) -> Result<(), ChartError> {
    // A picture without fonts does not know how wide its texts are.
    let width_of = |text: &str| text.len() as i32 * 6;
    let middle = 12;
    let left = |colour| font(14, colour).pos(Pos::new(HPos::Left, VPos::Center));
    let mut x = 16;
    area.draw_text(panel.heading, &left(INK), (x, middle))
        .map_err(layout)?;
    x += width_of(panel.heading) + 28;
    let shown = panel.lines.iter().filter(|line| !line.points.is_empty());
    for line in shown.clone() {
        let half = if line.is_filled { 5 } else { 1 };
        let swatch = [(x, middle - half), (x + 18, middle + half)];
        area.draw(&Rectangle::new(swatch, line.colour.filled()))
            .map_err(layout)?;
        area.draw_text(&line.name, &left(FAINT), (x + 24, middle))
            .map_err(layout)?;
        x += 24 + width_of(&line.name) + 24;
    }
    if shown.count() == 0 {
        area.draw_text(panel.nothing, &left(FAINT), (x, middle))
            .map_err(layout)?;
    }
    Ok(())
}

/// The same points with corners: a value holds until the next is seen.
fn stepped(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut steps: Vec<(f64, f64)> = Vec::with_capacity(points.len() * 2);
    for (at, value) in points {
        if let Some((_, before)) = steps.last().copied() {
            steps.push((*at, before));
        }
        steps.push((*at, *value));
    }
    steps
}

/// A label of an axis, no longer than it has room for.
fn number(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", plain(value / 1e6)),
        value if value >= 1e4 => format!("{}k", plain(value / 1e3)),
        value => plain(value),
    }
}

/// At most three decimal places, without zeros at the end.
fn plain(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.25, "0.25"),
            (150.0, "150"),
            (9_000.0, "9000"),
            (20_000.0, "20k"),
            (1_500_000.0, "1.5M"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_value_holds_until_the_next() {
        let steps = stepped(&[(1.0, 5.0), (2.0, 7.0)]);
        assert_eq!(steps, [(1.0, 5.0), (2.0, 5.0), (2.0, 7.0)]);
        assert_eq!(stepped(&[]), []);
    }
}
