//! `tidegate man DIR`: the manual pages, made from the same texts as `--help`. Packages call it.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_mangen::{
    Man,
    roff::{Inline, Roff, roman},
};

use super::args::Cli;
use crate::output::{CommandFailure, Exit};
use tidegate::config;

const MANUAL: &str = "tidegate";

pub(super) fn man(directory: &Path) -> Result<Exit, CommandFailure> {
    write_all(directory)
        .with_context(|| format!("write the manual pages to {}", directory.display()))
        .map_err(|error| CommandFailure::new(Exit::Unexpected, error))?;
    Ok(Exit::Ok)
}

/// Writes a page for the program, one for each command, and one for the configuration file.
fn write_all(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    write_commands(&program, directory)?;
    let mut file = File::create(directory.join("tidegate.toml.5"))?;
    of_configuration().to_writer(&mut file)?;
    file.flush()
}

fn write_commands(command: &Command, directory: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let mut file = File::create(directory.join(format!("{name}.1")))?;
    render(command, &mut file)?;
    file.flush()?;
    let inner = command.get_subcommands();
    inner
        .filter(|command| !command.is_hide_set())
        .try_for_each(|command| write_commands(command, directory))
}

fn render(command: &Command, out: &mut dyn Write) -> io::Result<()> {
    let man = Man::new(command.clone()).manual(MANUAL).source(source());
    man.render_title(out)?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_description_section(out)?;
    if command
        .get_arguments()
        .any(|argument| !argument.is_hide_set())
    {
        man.render_options_section(out)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(out)?;
    }
    // The library would run the lines of the examples together.
    if let Some(help) = command.get_after_help() {
        sections(&help.to_string()).to_writer(out)?;
    }
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    match command.get_name() == Cli::command().get_name() {
        true => roff.text([roman("tidegate.toml(5)")]),
        false => roff.text([roman("tidegate(1), tidegate.toml(5)")]),
    };
    roff.to_writer(out)
}

fn source() -> String {
    format!("tidegate {}", env!("CARGO_PKG_VERSION"))
}

/// The text below a command's help. A line that starts at the margin and ends with a colon is a heading, and the lines
/// below it stay as they are.
fn sections(text: &str) -> Roff {
    let mut roff = Roff::new();
    let mut is_open = false;
    for line in text.lines() {
        match line.strip_suffix(':') {
            Some(heading) if !line.starts_with(' ') => {
                if is_open {
                    roff.control("fi", []);
                }
                roff.control("SH", [heading.to_uppercase().as_str()]);
                roff.control("nf", []);
                is_open = true;
            }
            _ => {
                roff.text([roman(line)]);
            }
        }
    }
    if is_open {
        roff.control("fi", []);
    }
    roff
}

/// The page of the configuration file: the unchanged reference.
fn of_configuration() -> Roff {
    let mut roff = Roff::new();
    roff.control("TH", ["tidegate.toml", "5", "", &source(), MANUAL]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("tidegate.toml - configuration of tidegate")]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([roman(
        "The file of --config, else $TIDEGATE_CONFIG, else ./tidegate.toml, else /etc/tidegate/tidegate.toml",
    )]);
    roff.control("SH", ["DESCRIPTION"]);
    let paragraphs: [&[Inline]; 2] = [
        &[roman(
            "TOML. Unknown keys are errors. Durations are \"500ms\", \"5s\", \"10m\"; sizes \"256MiB\". Any key can come \
             from the environment, with two underscores between levels: TIDEGATE_BROKER__URL.",
        )],
        &[roman(
            "`tidegate check` prints all problems of a file, and `tidegate check --reference` prints what follows.",
        )],
    ];
    for paragraph in paragraphs {
        roff.control("PP", []);
        roff.text(paragraph.to_vec());
    }
    roff.control("SH", ["KEYS"]);
    roff.control("nf", []);
    for line in config::reference().lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_keep_their_lines_under_headings_of_their_own() {
        let text = "Examples:\n  tidegate run\n  .hidden\n\nExit codes:\n  0 ok";
        let page = sections(text).to_roff();
        assert!(page.contains(".SH EXAMPLES\n.nf\n"), "{page}");
        assert!(page.contains("\n.fi\n.SH \"EXIT CODES\"\n.nf\n"), "{page}");
        assert!(page.contains("  tidegate run\n"), "{page}");
    }
}
