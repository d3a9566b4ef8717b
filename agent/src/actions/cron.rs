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
use crate::host::files::{self, FileState, Place};
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::Probe;
use lockstep_plan::catalogue::{CronFiles, DisableCron, RestoreCron};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub struct Disable;
pub struct Restore;

/// State of each file before the change.
type BeforeImage = BTreeMap<String, FileState>;

fn required_permissions(params: &CronFiles) -> Vec<Permission> {
    params
        .files
        .iter()
        .map(|file| Permission::Rename(PathBuf::from(file)))
        .collect()
}

fn place(cx: &Context, file: &str) -> Result<Place, ActionError> {
    cx.host
        .policy
        .place(&Permission::Rename(PathBuf::from(file)))
}

fn hidden(file: &Place) -> Place {
    file.aside("disabled")
}

/// Each file and what is at its place.
fn standings(
    cx: &Context,
    params: &CronFiles,
) -> Result<BTreeMap<String, (Place, FileState)>, ActionError> {
    let found = params.files.iter().map(|file| {
        let place = place(cx, file)?;
        let state = files::inspect(&place)?;
        Ok((file.clone(), (place, state)))
    });
    found.collect()
}

/// Restores one file if it is hidden and there is no file at its path.
fn restore(cx: &Context, file: &Place) -> Result<bool, ActionError> {
    let hidden = hidden(file);
    if files::is_free(&hidden)? {
        return Ok(false);
    }
    files::rename(&hidden, file)?;
    cx.effect(format!(
        "enabled the crontab {} (renamed from {})",
        file.path().display(),
        hidden.path().display()
    ));
    Ok(true)
}

/// Interval between two checks of a directory's time.
const TICK: Duration = Duration::from_millis(20);

/// Gives the directories of these files a modification time in a later second than
/// that of the renames, so that cron reads them again.
async fn announce(changed: &[Place]) -> Result<(), ActionError> {
    let mut renamed = BTreeMap::new();
    for file in changed {
        renamed.insert(file.parent(), (file, files::modified_secs(file)?));
    }
    for (file, before) in renamed.into_values() {
        // Bounded: the clock passes the second of a rename within a second. A time in
        // the future, after the clock was set back, differs at once.
        while files::touch(file)? == before {
            tokio::time::sleep(TICK).await;
        }
    }
    Ok(())
}

/// Whether a crontab can be disabled, and enabled again by the undo.
fn may_disable(file: &Place) -> Result<(), ActionError> {
    files::may_rename(file, &["disabled"])?;
    let hidden = hidden(file);
    if files::is_free(&hidden)? {
        return Ok(());
    }
    Err(files::taken(hidden.path()))
}

/// Whether a crontab that isn't in place can be put back.
fn may_restore(file: &Place) -> Result<(), ActionError> {
    let hidden = hidden(file);
    if files::is_free(&hidden)? {
        return Err(nothing_saved(file));
    }
    files::may_rename(&hidden, &[])
}

fn nothing_saved(file: &Place) -> ActionError {
    let what = format!(
        "{} can't be restored: there is no {}",
        file.path().display(),
        hidden(file).path().display()
    );
    ActionError::new(Code::LS2141, what)
        .state_left("it is not in effect")
        .remedy("put it back from a backup, then retry")
}

#[async_trait]
impl Action for Disable {
    type Params = DisableCron;

    fn required_permissions(&self, params: &DisableCron) -> Vec<Permission> {
        required_permissions(params)
    }

    async fn probe(&self, cx: &Context, params: &DisableCron) -> Result<Probe, ActionError> {
        let standings = standings(cx, params)?;
        for (file, (place, state)) in &standings {
            if *state != FileState::Absent {
                may_disable(place)?;
            } else if files::is_free(&hidden(place))? {
                return Err(
                    ActionError::new(Code::LS2140, format!("there is no crontab {file}"))
                        .state_left("nothing was changed")
                        .remedy("correct its path in the plan"),
                );
            }
        }
        let states = standings.into_iter();
        let image: BeforeImage = states.map(|(file, (_, state))| (file, state)).collect();
        let so = image.values().all(|state| *state == FileState::Absent);
        with_before_image(satisfied_if(so), &image)
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &DisableCron,
    ) -> Result<Description, ActionError> {
        let mut description = Description::default();
        for (file, (place, state)) in standings(cx, params)? {
            if state == FileState::Absent {
                description
                    .remarks
                    .push(format!("{file} is not in effect now"));
            } else {
                let line = format!("move {file} to {}", hidden(&place).path().display());
                description.would_do.push(line);
                description.obstacle(may_disable(&place));
                let names = files::names(&place);
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
        let places = all(cx, params)?;
        for file in &places {
            if !files::is_free(file)? {
                let hidden = hidden(file);
                files::rename(file, &hidden)?;
                cx.effect(format!(
                    "disabled the crontab {} (renamed to {})",
                    file.path().display(),
                    hidden.path().display()
                ));
            }
        }
        // Also those that an interrupted attempt has renamed.
        announce(&places).await?;
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
            let place = place(cx, file)?;
            match files::inspect(&place)? {
                now if before.is(&now) => {}
                FileState::Absent => {
                    if !restore(cx, &place)? {
                        return Ok(Undone::Drifted(format!(
                            "{file} is neither in place nor saved as {}",
                            hidden(&place).path().display()
                        )));
                    }
                    changed.push(place);
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

    async fn probe(&self, cx: &Context, params: &RestoreCron) -> Result<Probe, ActionError> {
        let mut so = true;
        for (place, state) in standings(cx, params)?.into_values() {
            if state == FileState::Absent {
                may_restore(&place)?;
                so = false;
            }
        }
        Ok(found(satisfied_if(so)))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &RestoreCron,
    ) -> Result<Description, ActionError> {
        let mut description = Description::default();
        for (file, (place, state)) in standings(cx, params)? {
            let line = format!("put {file} back in place");
            description.would_do.push(line);
            if state == FileState::Absent {
                description.obstacle(may_restore(&place));
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
        let places = all(cx, params)?;
        for file in &places {
            if files::is_free(file)? && !restore(cx, file)? {
                return Err(nothing_saved(file));
            }
        }
        announce(&places).await?;
        Ok(Outputs::new())
    }
}

fn all(cx: &Context, params: &CronFiles) -> Result<Vec<Place>, ActionError> {
    params.files.iter().map(|file| place(cx, file)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_barrier::message::Finding;
    use std::fs;
    use std::path::Path;

    #[tokio::test]
    async fn only_what_was_in_effect_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name).display().to_string();
        fs::write(file("on"), "* * * * * root true").unwrap();
        fs::write(hidden_path(&file("off")), "* * * * * root false").unwrap();
        let cx = of_test(dir.path());
        let params = DisableCron(CronFiles {
            files: vec![file("on"), file("off")],
        });
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

    fn of_test(directory: &Path) -> Context {
        let shown = directory.display();
        Context::of_test(&format!("[policy]\npaths=['{shown}']\n"))
    }

    fn hidden_path(file: &str) -> PathBuf {
        files::aside(Path::new(file), "disabled")
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
        let (cx, params) = (of_test(dir.path()), disable(&file));
        let image = Disable.probe(&cx, &params).await.unwrap().before_image;
        Disable.execute(&cx, &params, image.as_ref()).await.unwrap();
        let renamed = fs::symlink_metadata(hidden_path(&file)).unwrap();
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
        fs::write(hidden_path(&file), "* * * * * root of an earlier run").unwrap();
        let (cx, params) = (of_test(dir.path()), disable(&file));
        let error = Disable.probe(&cx, &params).await.unwrap_err();
        assert_eq!(error.code(), Code::LS2121);
        let obstacles = Disable.describe(&cx, &params).await.unwrap().obstacles;
        assert_eq!(obstacles, [error.report()]);

        fs::remove_file(hidden_path(&file)).unwrap();
        fs::create_dir(hidden_path(&file)).unwrap();
        let error = Disable.probe(&cx, &params).await.unwrap_err();
        assert_eq!(error.code(), Code::LS2120);

        fs::remove_file(&file).unwrap();
        fs::remove_dir(hidden_path(&file)).unwrap();
        let params = RestoreCron(CronFiles { files: vec![file] });
        let error = Restore.probe(&cx, &params).await.unwrap_err();
        assert_eq!(error.code(), Code::LS2141);
    }

    #[tokio::test]
    async fn a_crontab_that_is_nowhere_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let params = disable(&dir.path().join("shop").display().to_string());
        let error = Disable
            .probe(&of_test(dir.path()), &params)
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::LS2140);
    }
}
