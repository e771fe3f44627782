//! The module as its users see it: text in, settings or problems out.

mod arguments;
mod by_hand;
mod consuming;
mod durations;
mod environment;
mod files;
mod limits;
mod order_keys;
mod problems;
mod properties;
mod queues;
mod secrets;
mod settings;
mod slips;
mod tables;

use std::{collections::BTreeMap, io, path::Path};

use super::{Loaded, Problems, Surroundings, parse};

/// The smallest pool there is.
const POOL: &str = "[pools.thumbnails.runner]\ncommand = [\"true\"]\n";

/// A configuration and all that it depends on.
#[derive(Default)]
struct Given {
    text: String,
    environment: Vec<(String, String)>,
    surroundings: Surroundings,
    files: BTreeMap<&'static str, &'static str>,
}

fn given(text: &str) -> Given {
    Given {
        text: text.to_owned(),
        ..Given::default()
    }
}

/// The problems of one pool's tables, after which the smallest runner follows.
fn pool_lines(text: &str) -> Vec<String> {
    given(&format!("[pools.thumbnails]\n{text}\n{POOL}")).lines()
}

impl Given {
    fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn amqp_url(mut self, url: &str) -> Self {
        self.surroundings.amqp_url = Some(url.to_owned());
        self
    }

    fn file(mut self, path: &'static str, text: &'static str) -> Self {
        self.files.insert(path, text);
        self
    }

    fn parse(&self) -> Result<Loaded, Problems> {
        let read_file = |path: &Path| match path.to_str().and_then(|path| self.files.get(path)) {
            Some(text) => Ok(text.as_bytes().to_vec()),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        parse(
            &self.text,
            "tidegate.toml",
            &self.environment,
            &self.surroundings,
            &read_file,
        )
    }

    fn loaded(&self) -> Loaded {
        match self.parse() {
            Ok(loaded) => loaded,
            Err(problems) => panic!("{problems}"),
        }
    }

    fn problems(&self) -> Problems {
        self.parse().expect_err("there is a problem")
    }

    /// The problems, one a line, without their count.
    fn lines(&self) -> Vec<String> {
        self.problems().iter().map(ToString::to_string).collect()
    }
}
