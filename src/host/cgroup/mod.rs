//! Cgroups (v2): the cgroup of this process, and the cgroups of jobs.

mod groups;
mod home;

pub use self::{
    groups::{CgroupError, Groups, end, groups, leaf_of, remove_leaves, set_up},
    home::{Controller, Home, NoCgroupHome, SUPERVISOR, dir_of},
};
pub(crate) use groups::{Leaf, sweep};
