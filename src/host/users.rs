//! Users and groups by name or id.
//!
//! Reads the system's databases, which may be on a network. So it must not run on a thread that serves other work.

use std::{ffi::CString, path::PathBuf};

use nix::{
    errno::Errno,
    unistd::{Gid, Group, Uid, User},
};
use thiserror::Error;

/// System calls that change an id take this value as "no change": the process would stay root.
const AS_IT_IS: u32 = u32::MAX;

/// The user and group of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub uid: Uid,
    pub gid: Gid,
    /// The account in the databases. `None` if only a number was given.
    pub account: Option<Account>,
}

/// The facts about a user that a login needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub home: PathBuf,
}

impl Account {
    /// The name for C functions.
    pub fn c_name(&self) -> CString {
        // The name came from a C string, so it contains no NUL.
        CString::new(self.name.as_str()).unwrap_or_default()
    }
}

/// There is no such user or group here.
#[derive(Debug, Error)]
pub enum IdentityError {
    #[error("there is no user {0:?}")]
    NoUser(String),
    #[error("there is no group {0:?}")]
    NoGroup(String),
    #[error("no user has the id {0}, so a group has to be named too")]
    NoAccount(u32),
    #[error("users and groups cannot be looked up")]
    LookUp(#[source] Errno),
}

/// Looks up `user` and `group`: names, or ids. Without a user, our own user; without a group, the group of the user.
pub fn identity(user: Option<&str>, group: Option<&str>) -> Result<Identity, IdentityError> {
    let found = match user {
        None => by_id(Uid::effective())?,
        Some(user) => match user.parse() {
            Ok(AS_IT_IS) => return Err(IdentityError::NoUser(user.to_owned())),
            Ok(id) => by_id(Uid::from_raw(id))?,
            Err(_) => AccountLookup::Account(
                User::from_name(user)
                    .map_err(IdentityError::LookUp)?
                    .ok_or_else(|| IdentityError::NoUser(user.to_owned()))?,
            ),
        },
    };
    let group = group.map(gid).transpose()?;
    let (uid, own_group, account) = match found {
        AccountLookup::Account(user) => {
            let account = Account {
                name: user.name,
                home: user.dir,
            };
            (user.uid, Some(user.gid), Some(account))
        }
        AccountLookup::Number(uid) => (uid, None, None),
    };
    Ok(Identity {
        uid,
        gid: group
            .or(own_group)
            .ok_or(IdentityError::NoAccount(uid.as_raw()))?,
        account,
    })
}

enum AccountLookup {
    Account(User),
    Number(Uid),
}

fn by_id(uid: Uid) -> Result<AccountLookup, IdentityError> {
    let user = User::from_uid(uid).map_err(IdentityError::LookUp)?;
    Ok(user.map_or(AccountLookup::Number(uid), AccountLookup::Account))
}

fn gid(group: &str) -> Result<Gid, IdentityError> {
    let none = || IdentityError::NoGroup(group.to_owned());
    match group.parse() {
        Ok(AS_IT_IS) => return Err(none()),
        Ok(id) => return Ok(Gid::from_raw(id)),
        Err(_) => {}
    }
    let found = Group::from_name(group).map_err(IdentityError::LookUp)?;
    found.map(|group| group.gid).ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_users_and_groups_by_name_and_by_id() {
        let root = identity(Some("root"), None).expect("root");
        assert_eq!(root.uid, Uid::from_raw(0));
        assert_eq!(root.gid, Gid::from_raw(0));
        assert_eq!(root.account.clone().expect("an account").name, "root");
        assert_eq!(identity(Some("0"), None).expect("root"), root);
        let daemon = identity(Some("root"), Some("daemon")).expect("both");
        assert_eq!(daemon.gid.as_raw(), 1);
        assert_eq!(
            identity(Some("root"), Some("12345"))
                .expect("any")
                .gid
                .as_raw(),
            12345
        );
        let nobody = identity(Some("1234567"), Some("7")).expect("a number");
        assert_eq!((nobody.uid.as_raw(), nobody.account), (1_234_567, None));
    }

    #[test]
    fn names_the_user_that_does_not_exist() {
        let said = |user, group| identity(user, group).expect_err("not there").to_string();
        assert_eq!(said(Some("no-such"), None), "there is no user \"no-such\"");
        assert_eq!(said(None, Some("no-such")), "there is no group \"no-such\"");
        assert_eq!(
            said(Some("1234567"), None),
            "no user has the id 1234567, so a group has to be named too"
        );
        assert_eq!(
            said(Some("4294967295"), Some("root")),
            "there is no user \"4294967295\""
        );
        assert_eq!(
            said(Some("root"), Some("4294967295")),
            "there is no group \"4294967295\""
        );
    }
}
