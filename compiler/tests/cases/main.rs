//! Data-file tests of the IR and of what works on it: `tests/files/<suite>/*.ir`, each file a list of cases.

mod axes;
mod causality;
mod harness;
mod passes;
mod schedule;
mod text;
mod view;
