//! Draws the screen of a terminal program as SVG, for the pictures of README and docs. `scripts/pictures` calls it.
//!
//!     picture OUT.svg COLUMNS ROWS SECONDS KEYS COMMAND...
//!
//! Runs the command in a pseudo-terminal until it ends, or for the given number of seconds. It types the keys after
//! half of that time, and at the end `q`, as for `tidegate top`.

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs,
    io::{Read, Write as _},
    num::NonZeroU16,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::pty::{Winsize, openpty};
use vt100::{Cell, Color, Parser};

/// The size of a cell in the picture, in pixels.
const CELL: (f64, f64) = (8.4, 18.0);
const MARGIN: f64 = 14.0;
const FONT: f64 = 14.0;

const PAGE: &str = "#11181f";
const TEXT: &str = "#d5dee5";
const DIM: &str = "#8397a5";

/// The 16 colours of a terminal, readable on [`PAGE`].
const COLOURS: [&str; 16] = [
    "#27333d", "#ee7d74", "#57ab7a", "#d9a441", "#62a8e6", "#c7a4f0", "#5fc4c9", "#d5dee5",
    "#8397a5", "#f2a3a3", "#8ad6a6", "#f0c674", "#9ccdf2", "#ddc8f7", "#93dfe2", "#ffffff",
];

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [out, columns, rows, seconds, typed, program, rest @ ..] = &args[..] else {
        return Err("usage: picture OUT.svg COLUMNS ROWS SECONDS KEYS COMMAND...".into());
    };
    let (columns, rows): (NonZeroU16, NonZeroU16) = (columns.parse()?, rows.parse()?);
    let screen = run(
        (columns, rows),
        Duration::from_secs(seconds.parse()?),
        typed,
        program,
        rest,
    )?;
    fs::write(out, svg(&screen, columns.get(), rows.get())?)?;
    Ok(())
}

/// The last screen of a command.
fn run(
    (columns, rows): (NonZeroU16, NonZeroU16),
    time: Duration,
    typed: &str,
    program: &str,
    args: &[String],
) -> Result<vt100::Screen, Box<dyn Error>> {
    let size = Winsize {
        ws_row: rows.get(),
        ws_col: columns.get(),
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let terminal = openpty(Some(&size), None)?;
    let side = || terminal.slave.try_clone().map(Stdio::from);
    let mut child = Command::new(program)
        .args(args)
        .env("TERM", "xterm-256color")
        .env_remove("NO_COLOR")
        .stdin(side()?)
        .stdout(side()?)
        .stderr(side()?)
        .spawn()?;
    drop(terminal.slave);
    let mut keys = fs::File::from(terminal.master.try_clone()?);
    let mut shown = fs::File::from(terminal.master);
    let parser = Arc::new(Mutex::new(Parser::new(rows, columns, 0)));
    let writer = parser.clone();
    let reader = thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = shown.read(&mut buffer) {
            let mut parser = writer.lock().unwrap_or_else(PoisonError::into_inner);
            parser.process(&buffer[..read]);
        }
    });
    let end = Instant::now() + time;
    let mut typed = Some(typed);
    while Instant::now() < end && child.try_wait()?.is_none() {
        if end - Instant::now() < time / 2
            && let Some(typed) = typed.take()
        {
            keys.write_all(typed.as_bytes())?;
        }
        thread::sleep(Duration::from_millis(50));
    }
    let taken = |parser: &Mutex<Parser>| {
        let parser = parser.lock().unwrap_or_else(PoisonError::into_inner);
        parser.screen().clone()
    };
    let screen = taken(&parser);
    if child.try_wait()?.is_none() {
        keys.write_all(b"q")?;
        child.wait()?;
        return Ok(screen);
    }
    // The reader ends at the end of the output, after the terminal was closed.
    drop(keys);
    let _ = reader.join();
    Ok(taken(&parser))
}

fn svg(screen: &vt100::Screen, columns: u16, rows: u16) -> Result<String, std::fmt::Error> {
    let last = (0..rows).rev().find(|row| {
        (0..columns).any(|column| screen.cell(*row, column).is_some_and(Cell::has_contents))
    });
    let rows = last.map_or(1, |last| last + 1);
    let (width, height) = (
        f64::from(columns) * CELL.0 + 2.0 * MARGIN,
        f64::from(rows) * CELL.1 + 2.0 * MARGIN,
    );
    let mut svg = String::new();
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" font-size=\"{FONT}\">"
    )?;
    writeln!(
        svg,
        "<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{PAGE}\"/>"
    )?;
    for row in 0..rows {
        let mut column = 0;
        while column < columns {
            column = piece(&mut svg, screen, row, column, columns)?;
        }
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// Draws the cells from this column that have the same style. Returns the column after them.
fn piece(
    svg: &mut String,
    screen: &vt100::Screen,
    row: u16,
    start: u16,
    columns: u16,
) -> Result<u16, std::fmt::Error> {
    let look = |column| screen.cell(row, column).map(Look::of).unwrap_or_default();
    let first = look(start);
    let end = (start..columns).find(|column| look(*column) != first);
    let end = end.unwrap_or(columns);
    let mut text = String::new();
    for column in start..end {
        let cell = screen.cell(row, column);
        match cell.map(Cell::contents) {
            Some(contents) if !contents.is_empty() => text.push_str(contents),
            _ => text.push(' '),
        }
    }
    let (x, y) = (
        MARGIN + f64::from(start) * CELL.0,
        MARGIN + f64::from(row) * CELL.1,
    );
    let width = f64::from(end - start) * CELL.0;
    if let Some(back) = &first.back {
        writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{}\" fill=\"{back}\"/>",
            CELL.1
        )?;
    }
    if !text.trim().is_empty() {
        let weight = if first.bold {
            " font-weight=\"600\""
        } else {
            ""
        };
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        // The length keeps columns in place with any font.
        writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{:.1}\" textLength=\"{width:.1}\" lengthAdjust=\"spacingAndGlyphs\" fill=\"{}\"{weight} \
             xml:space=\"preserve\">{text}</text>",
            y + 13.5,
            first.ink
        )?;
    }
    Ok(end)
}

/// The style of a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    ink: String,
    back: Option<String>,
    bold: bool,
}

impl Default for Look {
    fn default() -> Self {
        Self {
            ink: TEXT.to_owned(),
            back: None,
            bold: false,
        }
    }
}

impl Look {
    fn of(cell: &Cell) -> Self {
        let ink = colour(cell.fgcolor()).unwrap_or_else(|| {
            let ink = if cell.dim() { DIM } else { TEXT };
            ink.to_owned()
        });
        let back = colour(cell.bgcolor());
        let (ink, back) = match cell.inverse() {
            true => (back.unwrap_or_else(|| PAGE.to_owned()), Some(ink)),
            false => (ink, back),
        };
        let bold = cell.bold();
        Self { ink, back, bold }
    }
}

fn colour(colour: Color) -> Option<String> {
    match colour {
        Color::Default => None,
        Color::Idx(index) => Some(indexed(index)),
        Color::Rgb(r, g, b) => Some(format!("#{r:02x}{g:02x}{b:02x}")),
    }
}

/// A colour of the 256: 16 named ones, a cube of 6 steps each way, and greys.
fn indexed(index: u8) -> String {
    let step = |step: u8| if step == 0 { 0 } else { 55 + 40 * step };
    match index {
        0..16 => COLOURS[usize::from(index)].to_owned(),
        16..232 => {
            let index = index - 16;
            let (r, g, b) = (index / 36, index / 6 % 6, index % 6);
            format!("#{:02x}{:02x}{:02x}", step(r), step(g), step(b))
        }
        232.. => {
            let grey = 8 + 10 * (index - 232);
            format!("#{grey:02x}{grey:02x}{grey:02x}")
        }
    }
}
