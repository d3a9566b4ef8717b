//! A double of Clusterware's control utility, for the profile of a listener's
//! resource alone: `crsctl status resource ora.NAME.lsnr -p` (`stat res`).
//!
//! It finds the simulator through `$ORACLE_HOME/dbs/control.sock`, and prints
//! those attributes that a reader of the access control list needs.

use oracle_simulator::control::{self, Request};
use oracle_simulator::listener::Status;
use oracle_simulator::listener::acl::Caller;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["stat" | "status", "res" | "resource", name, "-p"] => profile(name),
        _ => {
            Err("CRS-10001: only `crsctl status resource NAME -p` is part of this double\n".into())
        }
    };
    match outcome {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(text) => {
            print!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn profile(name: &str) -> Result<String, String> {
    let home = std::env::var_os("ORACLE_HOME").map(PathBuf::from);
    let socket = home.unwrap_or_default().join("dbs").join("control.sock");
    let all = control::call::<Vec<Status>>(&socket, &Request::Listeners).map_err(|error| {
        format!("CRS-4535: Cannot communicate with Cluster Ready Services\n{error}\n")
    })?;
    let meant = |status: &&Status| {
        status.clustered && name.eq_ignore_ascii_case(&format!("ora.{}.lsnr", status.name))
    };
    let Some(status) = all.iter().find(meant) else {
        return Err(format!("CRS-2613: Could not find resource '{name}'.\n"));
    };
    let own = || {
        format!(
            "owner:{}:rwx,pgrp:oinstall:r-x,other::r--",
            Caller::of_this_process().user
        )
    };
    Ok(format!(
        "NAME={name}\nTYPE=ora.listener.type\nACL={}\nACTION_SCRIPT=\nENABLED={}\nENDPOINTS=TCP:{}\n\n",
        status.arranged.acl.clone().unwrap_or_else(own),
        u8::from(status.enabled),
        status.port,
    ))
}
