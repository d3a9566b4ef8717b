//! `cron.disable`, `cron.restore`: crontab files disabled and enabled again.
//!
//! A file is renamed to a hidden name in the same directory. Debian's cron
//! reads in `/etc/cron.d` only names of letters, digits, hyphens and
//! underscores (cron(8)), and notices the rename by the directory's time stamp
//! within a minute. Jobs that are running already go on; ending them is the
//! work of another action.

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
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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
fn restore(file: &str) -> Result<bool, ActionError> {
    if files::inspect(&hidden(file))? == FileState::Absent {
        return Ok(false);
    }
    files::rename(&hidden(file), Path::new(file))?;
    Ok(true)
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
            let nowhere =
                *state == FileState::Absent && files::inspect(&hidden(file))? == FileState::Absent;
            if nowhere {
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
            if files::inspect(Path::new(file))? != FileState::Absent {
                files::rename(Path::new(file), &hidden(file))?;
                cx.note(format!("{file}: disabled"));
            }
        }
        Ok(Outputs::new())
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &DisableCron,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        let before_image: BeforeImage = decode_before_image(before_image)?;
        let mut changed = false;
        for file in &params.files {
            let before = before_image.get(file).unwrap_or(&FileState::Absent);
            if *before == FileState::Absent {
                continue;
            }
            match files::inspect(Path::new(file))? {
                now if now == *before => {}
                FileState::Absent => {
                    if !restore(file)? {
                        return Ok(Undone::Drifted(format!(
                            "{file} is neither in place nor saved as {}",
                            hidden(file).display()
                        )));
                    }
                    cx.note(format!("{file}: enabled again"));
                    changed = true;
                }
                _ => {
                    let drift = format!("somebody put another {file} in place");
                    return Ok(Undone::Drifted(drift));
                }
            }
        }
        Ok(Undone::restored_if(changed))
    }
}

#[async_trait]
impl Action for Restore {
    type Params = RestoreCron;

    fn required_permissions(&self, params: &RestoreCron) -> Vec<Permission> {
        required_permissions(params)
    }

    async fn probe(&self, _cx: &Context, params: &RestoreCron) -> Result<Probe, ActionError> {
        let so = standings(params)?
            .values()
            .all(|state| *state != FileState::Absent);
        Ok(found(satisfied_if(so)))
    }

    async fn describe(
        &self,
        _cx: &Context,
        params: &RestoreCron,
    ) -> Result<Description, ActionError> {
        let lines = params
            .files
            .iter()
            .map(|file| format!("put {file} back in place"));
        Ok(Description::of(lines))
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &RestoreCron,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        for file in &params.files {
            if files::inspect(Path::new(file))? != FileState::Absent {
                continue;
            }
            if !restore(file)? {
                let saved = hidden(file);
                return Err(ActionError::new(
                    Code::LS2141,
                    format!("{file} can't be restored: there is no {}", saved.display()),
                )
                .state_left("it is not in effect")
                .remedy("put it back from a backup, then retry"));
            }
            cx.note(format!("{file}: enabled again"));
        }
        Ok(Outputs::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::{Progress, WorkId};
    use crate::host::Host;
    use lockstep_barrier::message::Finding;
    use std::fs;
    use std::sync::Arc;
    use tokio_util::sync::CancellationToken;

    fn context() -> Context {
        let least = "name='a'\ncoordinator='c'\nstate_dir='/s'\n[tls]\nca='a'\ncert='b'\nkey='c'\ntrust_domain='t'\n";
        Context {
            host: Arc::new(Host::new(toml::from_str(least).unwrap())),
            tag: WorkId {
                run: "r".into(),
                step: "s".into(),
                attempt: 1,
                of: None,
            },
            cancel: CancellationToken::new(),
            progress: Progress::silent(),
        }
    }

    #[tokio::test]
    async fn only_what_was_in_effect_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name).display().to_string();
        fs::write(file("on"), "* * * * * root true").unwrap();
        fs::write(hidden(&file("off")), "* * * * * root false").unwrap();
        let (cx, params) = (
            context(),
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

    #[tokio::test]
    async fn a_crontab_that_is_nowhere_is_refused() {
        let params = DisableCron(CronFiles {
            files: vec!["/nowhere/cron.d/shop".into()],
        });
        let error = Disable.probe(&context(), &params).await.unwrap_err();
        assert_eq!(error.code(), Code::LS2140);
    }
}
