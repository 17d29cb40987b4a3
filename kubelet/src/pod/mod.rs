//! Pods: what is to be done for one (`plan`), and how it is done (`worker` and its parts).

pub mod admit;
pub mod container;
pub mod context;
pub mod execute;
pub mod history;
pub mod hooks;
pub mod orphans;
pub mod plan;
pub mod pods;
pub mod prepare;
pub mod start;
pub mod terminate;
pub mod worker;
