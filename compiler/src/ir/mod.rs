//! The graph IR: typed SSA graphs over dims with identity. docs/ir.md explains it.

pub mod builder;
pub mod dot;
pub mod entities;
pub mod graph;
pub mod host;
mod lex;
pub mod op;
pub mod picture;
pub mod print;
pub mod read;
pub mod types;
pub mod typing;
pub mod verify;
pub mod view;

pub use builder::Builder;
pub use entities::{Dim, Func, Node, Scalar, Slot, Value};
pub use graph::{
    Entry, EntryKey, EntryKind, Graph, Input, Module, NodeData, Output, ScalarData, SlotData, SlotRole, ValueData,
    ValueDef,
};
pub use host::{HostBinary, HostExpr, HostUnary};
pub use op::{AttentionMask, BinaryOp, CallKind, CompareOp, Distribution, F64, Fusion, Op, ReduceKind, UnaryOp};
pub use types::{DType, DimData, DimRole, Dims, Type};
pub use typing::Stage;
