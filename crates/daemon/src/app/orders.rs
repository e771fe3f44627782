//! The file of the operators' orders, `orders.json` in the state directory. Written on each change, read at the start.
//!
//! The new content is written to a second file and then renamed, so that a crash leaves either the old orders or the
//! new ones. Only the holder of the instance lock uses the file. If the file cannot be read, it is renamed, and the
//! start continues.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::error;

use tidegate::{
    run::{AllOrders, OrdersStore, chain},
    runner::BoxError,
};

const FILE: &str = "orders.json";
/// The new name of a file that cannot be read. An earlier file with this name is replaced.
const ASIDE: &str = "orders.json.aside";
/// The name under which the next file is written.
const NEXT: &str = "orders.json.next";

/// The version that we write. A change that older programs would misread needs a new version.
const VERSION: u32 = 1;

/// Largest file that is read: about 1,000 pools, each with every order.
const MAX_BYTES: u64 = 4 << 20;

/// The stored orders could not be read.
#[derive(Debug, Error)]
enum UnreadableOrders {
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error("it is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("it is of version {0}, and this program knows version {VERSION}")]
    Version(u64),
    #[error("it does not contain the orders of pools")]
    Format(#[source] serde_json::Error),
}

/// The content of the file.
#[derive(Serialize, Deserialize)]
struct OrdersDocument<P> {
    version: u32,
    pools: P,
}

/// The file of the orders in a state directory.
#[derive(Debug, Clone)]
pub(super) struct OrdersFile {
    state_dir: PathBuf,
}

impl OrdersFile {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
        }
    }

    /// The orders of an earlier run. Without a file there are none. A file that cannot be read is renamed, with a
    /// log line.
    pub(super) fn restore(&self) -> AllOrders {
        let path = self.state_dir.join(FILE);
        let error = match read(&path) {
            Ok(orders) => return orders,
            Err(error) => error,
        };
        let aside = self.state_dir.join(ASIDE);
        let kept = match fs::rename(&path, &aside) {
            Ok(()) => aside,
            Err(_) => path.clone(),
        };
        error!(
            file = %path.display(),
            kept = %kept.display(),
            error = chain(&error),
            "could not read the operators' orders: every pool runs as it is configured"
        );
        AllOrders::new()
    }

    fn write(&self, orders: &AllOrders) -> io::Result<()> {
        let document = OrdersDocument {
            version: VERSION,
            pools: orders,
        };
        let mut text = serde_json::to_vec_pretty(&document)?;
        text.push(b'\n');
        let next = self.state_dir.join(NEXT);
        // A file that a crash left may have another mode, or be a link.
        match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&next)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&next, self.state_dir.join(FILE))?;
        File::open(&self.state_dir)?.sync_all()
    }
}

fn read(path: &Path) -> Result<AllOrders, UnreadableOrders> {
    let file = OpenOptions::new()
        .read(true)
        // Do not follow a link to another user's file, and do not block the start.
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(path);
    let file = match file {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(AllOrders::new()),
        file => file.map_err(UnreadableOrders::Read)?,
    };
    let mut bytes = Vec::new();
    let mut file = file.take(MAX_BYTES + 1);
    file.read_to_end(&mut bytes)
        .map_err(UnreadableOrders::Read)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(UnreadableOrders::TooLarge);
    }
    // The version is checked first, because the content of another version can have any form.
    let document: OrdersDocument<serde_json::Value> =
        serde_json::from_slice(&bytes).map_err(UnreadableOrders::Format)?;
    if document.version != VERSION {
        return Err(UnreadableOrders::Version(document.version.into()));
    }
    serde_json::from_value(document.pools).map_err(UnreadableOrders::Format)
}

#[async_trait]
impl OrdersStore for OrdersFile {
    async fn store(&self, orders: &AllOrders) -> Result<(), BoxError> {
        let (this, orders) = (self.clone(), orders.clone());
        let written = tokio::task::spawn_blocking(move || this.write(&orders)).await?;
        let path = self.state_dir.join(FILE);
        written.map_err(|error| format!("write {}: {error}", path.display()).into())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use tidegate::decide::{Order, Orders};

    use super::*;

    fn orders() -> AllOrders {
        let mut orders = Orders::default();
        let at = "2027-01-15T08:00:00Z".parse().unwrap();
        for order in [Order::Pause { until: None }, Order::Pin { workers: 3 }] {
            let _ = orders.apply(order, "root".into(), at).unwrap();
        }
        AllOrders::from([("thumbnails".into(), orders)])
    }

    #[tokio::test]
    async fn stored_orders_are_restored_and_only_their_user_can_read_them() {
        let state = tempfile::tempdir().unwrap();
        let file = OrdersFile::new(state.path());
        assert_eq!(file.restore(), AllOrders::new());
        // A link that a crash or an attacker may have left.
        symlink("/dev/null", state.path().join(NEXT)).unwrap();
        file.store(&orders()).await.unwrap();
        assert_eq!(file.restore(), orders());
        let path = state.path().join(FILE);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        file.store(&AllOrders::new()).await.unwrap();
        assert_eq!(file.restore(), AllOrders::new());
        let names: Vec<_> = fs::read_dir(state.path()).unwrap().collect();
        assert_eq!(names.len(), 1);
    }

    #[test]
    fn a_file_of_another_version_or_form_is_renamed_and_kept() {
        let state = tempfile::tempdir().unwrap();
        let file = OrdersFile::new(state.path());
        let (path, aside) = (state.path().join(FILE), state.path().join(ASIDE));
        for (text, why) in [
            (
                r#"{"version": 2, "pools": [1]}"#.to_owned(),
                "it is of version 2",
            ),
            ("{".to_owned(), "does not contain the orders of pools"),
            (
                r#"{"version": 1, "pools": {"a": {"pin": 3}}}"#.to_owned(),
                "does not contain the orders of pools",
            ),
            (" ".repeat(MAX_BYTES as usize + 1), "larger than"),
        ] {
            fs::write(&path, &text).unwrap();
            let error = read(&path).unwrap_err();
            let shown = chain(&error);
            assert!(shown.contains(why), "{shown}");
            assert_eq!(file.restore(), AllOrders::new());
            assert!(!path.exists());
            assert_eq!(fs::read_to_string(&aside).unwrap(), text);
        }
    }
}
