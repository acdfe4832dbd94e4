//! The rules of the model, and the promises of the guards, on real mounts.

mod clients;
mod converge;
mod draws;
mod limits;
mod nine;
mod objects;
mod times;
