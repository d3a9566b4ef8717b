//! A `libclntsh.so` for rehearsals: the OCI calls that ODPI-C makes, carried
//! to the Oracle simulator.
//!
//! It is loaded by unmodified clients (the `oracle` crate, python-oracledb in
//! thick mode) from a directory laid out like an `ORACLE_HOME`. It holds no
//! SQL engine and no state of a database: every execution goes over a socket
//! to the simulator (see [`oracle_simulator::wire`]). What it does itself is
//! what the real library does on the client's side: handles and attributes,
//! the layout of bind and define buffers, the codecs of Oracle's types, bind
//! names, timeouts and breaks.
//!
//! Deliberately absent: session pools, LOBs, objects, queues, scrollable
//! cursors, implicit results, two-phase commit. A function that isn't here
//! makes ODPI-C say DPI-1049; an attribute that isn't here answers ORA-24315
//! and says so on standard error. `LOCKSTEP_CLNTSH_TRACE` names a file that
//! takes a line for every call.

mod attributes;
mod bind;
mod connect;
mod convert;
mod datetime;
mod define;
mod describe;
mod environment;
mod error;
mod handles;
mod lexer;
mod link;
mod memory;
mod number;
mod sigchld;
mod statement;
mod target;
mod trace;
