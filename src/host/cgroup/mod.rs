//! Cgroups (v2): where this process is among them, and those that jobs are put into.

mod groups;
mod home;

pub use self::{
    groups::{CgroupError, Groups, end, groups, leaf_of, remove_leaves, set_up},
    home::{Controller, Home, NoHome, SUPERVISOR, dir_of},
};
pub(crate) use groups::{Leaf, sweep};
