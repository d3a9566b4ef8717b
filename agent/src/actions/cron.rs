//! `cron.disable`, `cron.restore`: crontab files disabled and enabled again.
//!
//! A file is renamed to a hidden name in the same directory. Debian's cron
//! reads in `/etc/cron.d` only names of letters, digits, hyphens and
//! underscores (cron(8)), and neither there nor among the users' crontabs a name that
//! begins with a dot (`load_database` in its `database.c`). Jobs that are running
//! already go on; ending them is the work of another action.
//!
//! Each minute, cron compares the directory's modification time with that of its last
//! read, in whole seconds (ibid.). A rename in the second of that read would go
//! unnoticed until the next change, so the directory gets a time in a later second.

use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, decode_before_image, found,
    satisfied_if, with_before_image,
};
use crate::host::files::{self, FileState};
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::Probe;
use lockstep_plan::catalogue::{CronFiles, DisableCron, RestoreCron};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub struct Disable;
pub struct Restore;

/// State of each file before the change.
type BeforeImage = BTreeMap<String, FileState>;

fn required_permissions(params: &CronFiles) -> Vec<Permission> {
    params
        .files
        .iter()
        .map(|file| Permission::Path(PathBuf::from(file)))
        .collect()
}

fn hidden(file: &str) -> PathBuf {
    files::aside(Path::new(file), "disabled")
}

fn standings(params: &CronFiles) -> Result<BeforeImage, ActionError> {
    params
        .files
        .iter()
        .map(|file| Ok((file.clone(), files::inspect(Path::new(file))?)))
        .collect()
}

/// Restores one file if it is hidden and there is no file at its path.
fn restore(cx: &Context, file: &str) -> Result<bool, ActionError> {
    let hidden = hidden(file);
    if files::is_free(&hidden)? {
        return Ok(false);
    }
    files::rename(&hidden, Path::new(file))?;
    cx.effect(format!(
        "enabled the crontab {file} (renamed from {})",
        hidden.display()
    ));
    Ok(true)
}

/// Interval between two checks of a directory's time.
const TICK: Duration = Duration::from_millis(20);

/// Gives the directories of these files a modification time in a later second than
/// that of the renames, so that cron reads them again.
async fn announce(changed: &[&str]) -> Result<(), ActionError> {
    let directories: BTreeSet<&Path> = changed
        .iter()
        .filter_map(|file| Path::new(*file).parent())
        .collect();
    let mut renamed = Vec::new();
    for directory in directories {
        renamed.push((directory, files::modified_secs(directory)?));
    }
    for (directory, before) in renamed {
        // Bounded: the clock passes the second of a rename within a second. A time in
        // the future, after the clock was set back, differs at once.
        while files::touch(directory)? == before {
            tokio::time::sleep(TICK).await;
        }
    }
    Ok(())
}

/// Whether a crontab can be disabled, and enabled again by the undo.
fn may_disable(file: &str) -> Result<(), ActionError> {
    files::may_rename(Path::new(file), &["disabled"])?;
    let hidden = hidden(file);
    if files::is_free(&hidden)? {
        return Ok(());
    }
    Err(files::taken(&hidden))
}

/// Whether a crontab that isn't in place can be put back.
fn may_restore(file: &str) -> Result<(), ActionError> {
    let hidden = hidden(file);
    if files::is_free(&hidden)? {
        return Err(nothing_saved(file));
    }
    files::may_rename(&hidden, &[])
}

fn nothing_saved(file: &str) -> ActionError {
    let saved = hidden(file);
    ActionError::new(
        Code::LS2141,
        format!("{file} can't be restored: there is no {}", saved.display()),
    )
    .state_left("it is not in effect")
    .remedy("put it back from a backup, then retry")
}

#[async_trait]
impl Action for Disable {
    type Params = DisableCron;

    fn required_permissions(&self, params: &DisableCron) -> Vec<Permission> {
        required_permissions(params)
    }

    async fn probe(&self, _cx: &Context, params: &DisableCron) -> Result<Probe, ActionError> {
        let standings = standings(params)?;
        for (file, state) in &standings {
            if *state != FileState::Absent {
                may_disable(file)?;
            } else if files::is_free(&hidden(file))? {
                return Err(
                    ActionError::new(Code::LS2140, format!("there is no crontab {file}"))
                        .state_left("nothing was changed")
                        .remedy("correct its path in the plan"),
                );
            }
        }
        let so = standings.values().all(|state| *state == FileState::Absent);
        with_before_image(satisfied_if(so), &standings)
    }

    async fn describe(
        &self,
        _cx: &Context,
        params: &DisableCron,
    ) -> Result<Description, ActionError> {
        let mut description = Description::default();
        for (file, state) in standings(params)? {
            if state == FileState::Absent {
                description
                    .remarks
                    .push(format!("{file} is not in effect now"));
            } else {
                let line = format!("move {file} to {}", hidden(&file).display());
                description.would_do.push(line);
                description.obstacle(may_disable(&file));
                let names = files::names(Path::new(&file));
                if let 2.. = names {
                    description.remarks.push(format!(
                        "{file} has {} other names (hard links); cron ignores such a file, and \
                         one in another directory of crontabs stays",
                        names - 1
                    ));
                }
            }
        }
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &DisableCron,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        for file in &params.files {
            if !files::is_free(Path::new(file))? {
                let hidden = hidden(file);
                files::rename(Path::new(file), &hidden)?;
                cx.effect(format!(
                    "disabled the crontab {file} (renamed to {})",
                    hidden.display()
                ));
            }
        }
        // Also those that an interrupted attempt has renamed.
        announce(&all(&params.files)).await?;
        Ok(Outputs::new())
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &DisableCron,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        let before_image: BeforeImage = decode_before_image(before_image)?;
        let mut changed = Vec::new();
        for file in &params.files {
            let before = before_image.get(file).unwrap_or(&FileState::Absent);
            if *before == FileState::Absent {
                continue;
            }
            match files::inspect(Path::new(file))? {
                now if before.is(&now) => {}
                FileState::Absent => {
                    if !restore(cx, file)? {
                        return Ok(Undone::Drifted(format!(
                            "{file} is neither in place nor saved as {}",
                            hidden(file).display()
                        )));
                    }
                    changed.push(file.as_str());
                }
                _ => {
                    let drift = format!("somebody put another {file} in place");
                    return Ok(Undone::Drifted(drift));
                }
            }
        }
        announce(&changed).await?;
        Ok(Undone::restored_if(!changed.is_empty()))
    }
}

#[async_trait]
impl Action for Restore {
    type Params = RestoreCron;

    fn required_permissions(&self, params: &RestoreCron) -> Vec<Permission> {
        required_permissions(params)
    }

    async fn probe(&self, _cx: &Context, params: &RestoreCron) -> Result<Probe, ActionError> {
        let mut so = true;
        for (file, state) in standings(params)? {
            if state == FileState::Absent {
                may_restore(&file)?;
                so = false;
            }
        }
        Ok(found(satisfied_if(so)))
    }

    async fn describe(
        &self,
        _cx: &Context,
        params: &RestoreCron,
    ) -> Result<Description, ActionError> {
        let mut description = Description::default();
        for (file, state) in standings(params)? {
            let line = format!("put {file} back in place");
            description.would_do.push(line);
            if state == FileState::Absent {
                description.obstacle(may_restore(&file));
            }
        }
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &RestoreCron,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        for file in &params.files {
            if files::is_free(Path::new(file))? && !restore(cx, file)? {
                return Err(nothing_saved(file));
            }
        }
        announce(&all(&params.files)).await?;
        Ok(Outputs::new())
    }
}

fn all(files: &[String]) -> Vec<&str> {
    files.iter().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_barrier::message::Finding;
    use std::fs;

    #[tokio::test]
    async fn only_what_was_in_effect_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name).display().to_string();
        fs::write(file("on"), "* * * * * root true").unwrap();
        fs::write(hidden(&file("off")), "* * * * * root false").unwrap();
        let (cx, params) = (
            Context::of_test(""),
            DisableCron(CronFiles {
                files: vec![file("on"), file("off")],
            }),
        );
        let before_image = Disable
            .probe(&cx, &params)
            .await
            .unwrap()
            .before_image
            .unwrap();
        Disable
            .execute(&cx, &params, Some(&before_image))
            .await
            .unwrap();
        assert!(!Path::new(&file("on")).exists());
        assert_eq!(
            Disable.probe(&cx, &params).await.unwrap().finding,
            Finding::Satisfied
        );
        assert_eq!(
            Disable.undo(&cx, &params, &before_image).await.unwrap(),
            Undone::Restored
        );
        assert!(Path::new(&file("on")).exists());
        assert!(
            !Path::new(&file("off")).exists(),
            "it was off before and stays off"
        );
    }

    fn disable(file: &str) -> DisableCron {
        DisableCron(CronFiles {
            files: vec![file.to_owned()],
        })
    }

    /// cron compares whole seconds: a time in the second of the rename could be the
    /// one that it has seen.
    #[tokio::test]
    async fn the_directory_has_a_later_second_than_the_rename() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("app").display().to_string();
        fs::write(&file, "* * * * * true").unwrap();
        let (cx, params) = (Context::of_test(""), disable(&file));
        let image = Disable.probe(&cx, &params).await.unwrap().before_image;
        Disable.execute(&cx, &params, image.as_ref()).await.unwrap();
        let renamed = fs::symlink_metadata(hidden(&file)).unwrap();
        let seen = |metadata: fs::Metadata| std::os::unix::fs::MetadataExt::mtime(&metadata);
        // The rename sets the status change time of the file.
        let at = std::os::unix::fs::MetadataExt::ctime(&renamed);
        let disabled = seen(fs::metadata(dir.path()).unwrap());
        assert!(disabled > at, "{disabled} {at}");
        Disable.undo(&cx, &params, &image.unwrap()).await.unwrap();
        let at = std::os::unix::fs::MetadataExt::ctime(&fs::symlink_metadata(&file).unwrap());
        let enabled = seen(fs::metadata(dir.path()).unwrap());
        assert!(enabled > at, "{enabled} {at}");
    }

    #[tokio::test]
    async fn what_prevents_the_rename_is_found_beforehand() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("shop").display().to_string();
        fs::write(&file, "* * * * * root true").unwrap();
        fs::write(hidden(&file), "* * * * * root of an earlier run").unwrap();
        let (cx, params) = (Context::of_test(""), disable(&file));
        let error = Disable.probe(&cx, &params).await.unwrap_err();
        assert_eq!(error.code(), Code::LS2121);
        let obstacles = Disable.describe(&cx, &params).await.unwrap().obstacles;
        assert_eq!(obstacles, [error.report()]);

        fs::remove_file(hidden(&file)).unwrap();
        fs::create_dir(hidden(&file)).unwrap();
        let error = Disable.probe(&cx, &params).await.unwrap_err();
        assert_eq!(error.code(), Code::LS2120);

        fs::remove_file(&file).unwrap();
        fs::remove_dir(hidden(&file)).unwrap();
        let params = RestoreCron(CronFiles { files: vec![file] });
        let error = Restore.probe(&cx, &params).await.unwrap_err();
        assert_eq!(error.code(), Code::LS2141);
    }

    #[tokio::test]
    async fn a_crontab_that_is_nowhere_is_refused() {
        let params = DisableCron(CronFiles {
            files: vec!["/nowhere/cron.d/shop".into()],
        });
        let error = Disable
            .probe(&Context::of_test(""), &params)
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::LS2140);
    }
}
