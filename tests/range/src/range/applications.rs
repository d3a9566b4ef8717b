//! The sample application on its hosts: units, timers, cron, configuration.
//!
//! | host | what runs there | how it reaches Oracle |
//! |---|---|---|
//! | every app-N | `shop-orders.service` | ora-1's listener, pooled |
//! | app-2 | also `shop-report.timer` | ora-1's listener, a login each time |
//! | app-3 | also the crontab `/srv/shop/cron.d/shop` | the same |
//! | ora-1 | `shop-batch.service` | a local login, without a listener |
//! | ora-2 | `shop-feed.service` | ora-2's own listener |
//! | app-1 | a client that no unit owns | ora-1's listener, pooled |
//!
//! No step stops the last one: it stands for a client that the plan forgot. It
//! reconnects at once after a kill, so only locked accounts and stopped listeners
//! keep it out.
//!
//! An application reads `/srv/shop/etc/database.toml`, a link to
//! `oracle.toml`; `postgres.toml` lies next to it.

use super::error::Error;
use super::host::{Host, Sketch, write};
use super::layout::{Layout, ports};
use super::oracle;
use super::process::Launch;
use super::secrets::Passwords;
use std::path::{Path, PathBuf};

/// Orders a second of the two clients on the Oracle hosts.
const SIDE_RATE: u32 = 5;

/// Order numbers of one host lie in a range of their own.
const NUMBERS_PER_HOST: u64 = 1_000_000_000;

/// Seconds that stand for a minute of the crontab and of the report timer.
const MINUTE_SECS: u32 = 5;

/// The host with the forgotten client.
pub const FORGOTTEN_ON: &str = "app-1";

/// How processes of the range list it.
pub const FORGOTTEN: &str = "forgotten-client";

/// It writes an order now and then.
const FORGOTTEN_RATE: u32 = 2;

/// Its order numbers begin here, beyond those of all hosts.
const FORGOTTEN_NUMBERS: u64 = 900 * NUMBERS_PER_HOST;

/// The units of a host that write to or read from the database, timers first.
#[must_use]
pub fn units_of(host: &str) -> &'static [&'static str] {
    match host {
        "ora-1" => &["shop-batch.service"],
        "ora-2" => &["shop-feed.service"],
        "app-2" => &["shop-report.timer", "shop-orders.service"],
        name if name.starts_with("app-") => &["shop-orders.service"],
        _ => &[],
    }
}

/// The unit on a host that writes orders, if there is one.
#[must_use]
pub fn writer_of(host: &str) -> Option<&'static str> {
    units_of(host).last().copied()
}

/// Writes units, configuration and crontab of one host.
///
/// # Errors
/// When a file can't be written.
pub fn lay_out(
    layout: &Layout,
    sketch: &Sketch,
    index: u64,
    rate: u32,
    passwords: &Passwords,
    postgres_ca: &Path,
) -> Result<(), Error> {
    let Some(writer) = writer_of(&sketch.name) else {
        return Ok(());
    };
    let etc = layout.shop(&sketch.name).join("etc");
    let rate = if sketch.name.starts_with("app-") {
        rate
    } else {
        SIDE_RATE
    };
    write(
        &etc.join("service.toml"),
        &format!(
            "host = {:?}\nfirst_order_no = {}\nrate = {rate}\nthreads = {}\nhealth = \"{}:{}\"\n",
            sketch.name,
            index * NUMBERS_PER_HOST,
            rate.div_ceil(40).clamp(1, 8),
            sketch.address,
            ports::HEALTH,
        ),
    )?;
    databases(layout, &sketch.name, &etc, passwords, postgres_ca)?;
    let units = layout.host(&sketch.name).join("config/systemd/user");
    write(&units.join(writer), &service(layout, writer))?;
    if sketch.name == "app-2" {
        write(&units.join("shop-report.service"), &report(layout))?;
        write(&units.join("shop-report.timer"), &report_timer())?;
    }
    if sketch.name == "app-3" {
        write(&units.join("cron.service"), &cron(layout))?;
        let crontab = format!(
            "# How many orders there are, every minute.\n* * * * * root {}\n",
            report_command(layout, "cron")
        );
        write(&layout.shop("app-3").join("cron.d/shop"), &crontab)?;
    }
    Ok(())
}

/// Starts what belongs on the host, as an administrator would have done.
///
/// # Errors
/// When systemd refuses.
pub fn start(host: &Host) -> Result<(), Error> {
    let units = units_of(&host.name);
    if units.is_empty() {
        return Ok(());
    }
    host.systemctl(&["daemon-reload"])?;
    host.systemctl(&[&["enable", "--now"], units].concat())?;
    if host.name == "app-3" {
        host.systemctl(&["enable", "--now", "cron.service"])?;
    }
    Ok(())
}

/// Where clients on a host log what was acknowledged to them.
#[must_use]
pub fn logs_of(layout: &Layout, host: &str) -> Vec<PathBuf> {
    let log = |name: &str| layout.shop(host).join("log").join(name);
    let mut logs = Vec::new();
    if writer_of(host).is_some() {
        logs.push(log("orders.jsonl"));
    }
    if host == FORGOTTEN_ON {
        logs.push(log("forgotten.jsonl"));
    }
    logs
}

/// The forgotten client: no unit owns it, no page tells its health, and its
/// configuration names Oracle for ever.
///
/// # Errors
/// When its configuration can't be written.
pub fn forgotten(layout: &Layout, host: &Host) -> Result<Launch, Error> {
    let service = layout.shop(&host.name).join("etc/forgotten.toml");
    let text = format!(
        "host = \"forgotten\"\nfirst_order_no = {FORGOTTEN_NUMBERS}\nrate = {FORGOTTEN_RATE}\n\
         threads = 2\n"
    );
    write(&service, &text)?;
    let argv = [
        layout.python().display().to_string(),
        layout.app("shop_orders.py").display().to_string(),
        "--service".into(),
        "/srv/shop/etc/forgotten.toml".into(),
        "--database".into(),
        "/srv/shop/etc/oracle.toml".into(),
        "--log".into(),
        "/srv/shop/log/forgotten.jsonl".into(),
    ];
    Ok(host.launch(FORGOTTEN, argv, layout.log(FORGOTTEN)))
}

fn databases(
    layout: &Layout,
    host: &str,
    etc: &Path,
    passwords: &Passwords,
    postgres_ca: &Path,
) -> Result<(), Error> {
    let (account, role) = if host == "ora-1" {
        ("batch", "batch_app")
    } else {
        ("shop", "shop_app")
    };
    let reach = match host {
        // A local login: the client library and the instance, no listener.
        "ora-1" => {
            let home = layout.oracle_home(host);
            format!("home = {home:?}\nsid = {:?}\n", oracle::HOSTS[0].sid)
        }
        "ora-2" => format!("dsn = \"127.0.0.1:{}/ORCL\"\n", ports::ORA2_LISTENER),
        _ => format!("dsn = \"127.0.0.1:{}/ORCL\"\n", ports::ORA1_LISTENER),
    };
    write(
        &etc.join("oracle.toml"),
        &format!(
            "target = \"oracle\"\n{reach}user = {:?}\npassword = {:?}\n",
            account.to_uppercase(),
            passwords.oracle[account],
        ),
    )?;
    write(
        &etc.join("postgres.toml"),
        &format!(
            "target = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\ndbname = \"shop\"\n\
             user = {role:?}\npassword = {:?}\nca = {postgres_ca:?}\n",
            ports::POSTGRES,
            passwords.postgres[role],
        ),
    )?;
    let link = etc.join("database.toml");
    std::os::unix::fs::symlink("oracle.toml", &link).map_err(Error::file("link", &link))
}

fn service(layout: &Layout, unit: &str) -> String {
    let name = unit.trim_end_matches(".service");
    format!(
        "[Unit]\nDescription=Shop: writes orders ({name})\n\n[Service]\n\
         ExecStart={python} {app} --service /srv/shop/etc/service.toml \
         --database /srv/shop/etc/database.toml --log /srv/shop/log/orders.jsonl\n\
         Restart=on-failure\nRestartSec=1\n\
         StandardOutput=append:{log}\nStandardError=append:{log}\n\n\
         [Install]\nWantedBy=default.target\n",
        python = layout.python().display(),
        app = layout.app("shop_orders.py").display(),
        log = layout.log(name).display(),
    )
}

fn report_command(layout: &Layout, name: &str) -> String {
    format!(
        "{} {} --database /srv/shop/etc/database.toml --log /srv/shop/log/{name}.jsonl",
        layout.python().display(),
        layout.app("shop_report.py").display(),
    )
}

fn report(layout: &Layout) -> String {
    format!(
        "[Unit]\nDescription=Shop: report\n\n[Service]\nType=oneshot\nExecStart={command}\n\
         StandardOutput=append:{log}\nStandardError=append:{log}\n",
        command = report_command(layout, "report"),
        log = layout.log("shop-report").display(),
    )
}

fn report_timer() -> String {
    format!(
        "[Unit]\nDescription=Shop: report, again and again\n\n[Timer]\nOnActiveSec=1s\n\
         OnUnitActiveSec={MINUTE_SECS}s\nAccuracySec=100ms\n\n[Install]\nWantedBy=timers.target\n"
    )
}

fn cron(layout: &Layout) -> String {
    format!(
        "[Unit]\nDescription=Cron\n\n[Service]\n\
         ExecStart={python} {runner} --directory /srv/shop/cron.d --minute {MINUTE_SECS}\n\
         StandardOutput=append:{log}\nStandardError=append:{log}\n\n\
         [Install]\nWantedBy=default.target\n",
        python = layout.python().display(),
        runner = layout.app("cron_runner.py").display(),
        log = layout.log("cron").display(),
    )
}
