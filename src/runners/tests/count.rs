//! A kind of runner that counts its jobs: all of it is in this file, as a new kind's would be in its folder.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    config::schema::{Key, Text, WholeNumber},
    host::instance::Instance,
    runner::{CreateRunner, Job, JobControl, JobEnd, RunReport, Runner, RunnerManager, StartError},
    runners::{
        facts::{CommandUse, Facts},
        keys::OwnKeys,
        kind::{Finish, FinishedRunner, KindSettings, RunnerKind, RunnerSettings},
    },
};

pub(super) static KIND: RunnerKind = RunnerKind {
    facts: Facts {
        name: "count",
        doc: "counts its jobs",
        takes: &["timeout", "env"],
        command: CommandUse::Arguments,
        grace_key: None,
        notes: &[("timeout", "`count` ignores it.")],
    },
    keys,
};

fn keys(own: &mut OwnKeys<'_, '_, '_>) -> Finish {
    let from: Key<Option<u32>> = own.optional(
        "from",
        "Of `count`: the number before the first job's.",
        WholeNumber(0..=1000),
        "41",
    );
    own.within_max(&from);
    // `container` has a key of this name too, which takes something else.
    let image = own.optional("image", "Of `count`: a picture.", PICTURE, "\"cat.png\"");
    Box::new(move |_, table| {
        if image.is_given() && !from.is_given() {
            table.refuse(&image, "write from beside it");
        }
        FinishedRunner {
            job: None,
            runner: RunnerSettings::new(Count::from(from.value.unwrap_or(0))),
        }
    })
}

const PICTURE: Text<String> = Text {
    wants: "a picture's name",
    parse: |text| match text.ends_with(".png") {
        true => Ok(text.to_owned()),
        false => Err("write the name of a PNG".to_owned()),
    },
    show: String::clone,
};

#[derive(Debug, Clone)]
pub(super) struct Count {
    from: u32,
    /// Written by jobs, read by the test.
    pub(super) seen: Arc<watch::Sender<u32>>,
}

impl Count {
    pub(super) fn from(from: u32) -> Self {
        let seen = Arc::new(watch::Sender::new(from));
        Self { from, seen }
    }
}

impl PartialEq for Count {
    fn eq(&self, other: &Self) -> bool {
        self.from == other.from
    }
}

impl KindSettings for Count {
    fn kind(&self) -> &'static str {
        KIND.facts.name
    }

    fn manager(&self, _: &Instance) -> Arc<dyn RunnerManager> {
        Arc::new(self.clone())
    }
}

#[async_trait]
impl RunnerManager for Count {
    fn kind(&self) -> &'static str {
        KIND.facts.name
    }

    async fn create(&self, _: CreateRunner) -> Result<Box<dyn Runner>, StartError> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Runner for Count {
    async fn run(&mut self, _: &Job, _: JobControl) -> RunReport {
        self.seen.send_modify(|count| *count += 1);
        RunReport {
            end: JobEnd::Done { reply: None },
            reusable: true,
        }
    }

    async fn stop(self: Box<Self>) {}
}
