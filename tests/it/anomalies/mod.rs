//! The anomalies of shared storage, numbered as in the catalogue: each is there until just before its time and gone at its
//! time, and the program that the table names as its survivor never meets it.

mod bytes;
mod names;
mod programs;
