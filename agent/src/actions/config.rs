//! `config.switch`: replaces a configuration file or link atomically and saves
//! the previous one.

use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, decode_before_image, satisfied_if,
    with_before_image,
};
use crate::host::files::{self, FileState};
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::Probe;
use lockstep_plan::catalogue::SwitchConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

pub struct Switch;

/// The previous state of the path, and the state that this action sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct BeforeImage {
    before: FileState,
    after: FileState,
}

/// Where the previous file is saved.
fn previous(path: &Path) -> PathBuf {
    files::aside(path, "previous")
}

/// The state that will be set: a link stays a link, anything else becomes a
/// copy.
fn wanted(before: &FileState, to: &Path) -> Result<FileState, ActionError> {
    match before {
        FileState::Link { .. } => Ok(FileState::Link {
            target: to.to_owned(),
        }),
        FileState::Absent | FileState::File { .. } => Ok(FileState::File {
            digest: files::digest(to)?,
        }),
    }
}

fn before_image(params: &SwitchConfig) -> Result<BeforeImage, ActionError> {
    let (path, to) = (Path::new(&params.path), Path::new(&params.to));
    if let Err(e) = std::fs::metadata(to) {
        return Err(
            ActionError::new(Code::LS2130, format!("{} is not there", to.display()))
                .state_left("nothing was changed")
                .remedy("put the new configuration in place before the cutover")
                .source(e),
        );
    }
    let before = files::inspect(path)?;
    let after = wanted(&before, to)?;
    Ok(BeforeImage { before, after })
}

#[async_trait]
impl Action for Switch {
    type Params = SwitchConfig;

    fn required_permissions(&self, params: &SwitchConfig) -> Vec<Permission> {
        vec![Permission::Path(PathBuf::from(&params.path))]
    }

    async fn probe(&self, _cx: &Context, params: &SwitchConfig) -> Result<Probe, ActionError> {
        let before_image = before_image(params)?;
        let so = before_image.before == before_image.after;
        with_before_image(satisfied_if(so), &before_image)
    }

    async fn describe(
        &self,
        _cx: &Context,
        params: &SwitchConfig,
    ) -> Result<Description, ActionError> {
        let line = match before_image(params)?.before {
            FileState::Link { target } => {
                format!(
                    "point {} at {} (now {})",
                    params.path,
                    params.to,
                    target.display()
                )
            }
            FileState::File { .. } => {
                let previous = previous(Path::new(&params.path));
                format!(
                    "replace {} by {}, keep it as {}",
                    params.path,
                    params.to,
                    previous.display()
                )
            }
            FileState::Absent => format!("copy {} to {}", params.to, params.path),
        };
        Ok(Description::of([line]))
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &SwitchConfig,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let (path, to) = (Path::new(&params.path), Path::new(&params.to));
        match files::inspect(path)? {
            FileState::Link { .. } => files::point(path, to)?,
            FileState::File { .. } => {
                files::replace(&previous(path), path)?;
                files::replace(path, to)?;
            }
            FileState::Absent => files::replace(path, to)?,
        }
        cx.note(format!("{} now reads {}", params.path, params.to));
        Ok(Outputs::new())
    }

    async fn undo(
        &self,
        _cx: &Context,
        params: &SwitchConfig,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        let before_image: BeforeImage = decode_before_image(before_image)?;
        let path = Path::new(&params.path);
        let now = files::inspect(path)?;
        if now == before_image.before {
            remove_leftovers(path, &before_image)?;
            return Ok(Undone::Unchanged);
        }
        if now != before_image.after {
            return Ok(Undone::Drifted(format!(
                "{} was changed by somebody else after the switch",
                params.path
            )));
        }
        match &before_image.before {
            FileState::Link { target } => files::point(path, target)?,
            FileState::Absent => files::remove(path)?,
            FileState::File { digest } => restore(path, digest)?,
        }
        Ok(Undone::Restored)
    }
}

/// Removes what an agent that was killed in the middle of this action or of its
/// undo left in the directory: the half-written replacement, and the saved copy of
/// the file that is in place again.
fn remove_leftovers(path: &Path, image: &BeforeImage) -> Result<(), ActionError> {
    files::discard_unfinished(path)?;
    let FileState::File { .. } = image.before else {
        return Ok(());
    };
    let previous = previous(path);
    files::discard_unfinished(&previous)?;
    if image.before != image.after && files::inspect(&previous)? == image.before {
        files::remove(&previous)?;
    }
    Ok(())
}

fn restore(path: &Path, digest: &str) -> Result<(), ActionError> {
    let previous = previous(path);
    if files::digest(&previous)? != digest {
        return Err(ActionError::new(
            Code::LS2131,
            format!(
                "{} is not the saved copy of {}",
                previous.display(),
                path.display()
            ),
        )
        .state_left("the new configuration is in effect")
        .remedy("restore the old one by hand from a backup, then skip this task"));
    }
    files::replace(path, &previous)?;
    files::remove(&previous)
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

    struct Site {
        _dir: tempfile::TempDir,
        path: PathBuf,
        params: SwitchConfig,
    }

    fn site() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("database.toml");
        fs::write(dir.path().join("oracle.toml"), "oracle").unwrap();
        fs::write(dir.path().join("postgres.toml"), "postgres").unwrap();
        let params = SwitchConfig {
            path: path.display().to_string(),
            to: dir.path().join("postgres.toml").display().to_string(),
        };
        Site {
            _dir: dir,
            path,
            params,
        }
    }

    /// Probe, execute, probe again, undo: the path is as before.
    async fn there_and_back(site: &Site) {
        let (cx, before) = (context(), files::inspect(&site.path).unwrap());
        let probe = Switch.probe(&cx, &site.params).await.unwrap();
        assert_eq!(probe.finding, Finding::Pending);
        let before_image = probe.before_image.unwrap();
        Switch
            .execute(&cx, &site.params, Some(&before_image))
            .await
            .unwrap();
        assert_eq!(fs::read_to_string(&site.path).unwrap(), "postgres");
        assert_eq!(
            Switch.probe(&cx, &site.params).await.unwrap().finding,
            Finding::Satisfied
        );
        let undone = Switch.undo(&cx, &site.params, &before_image).await.unwrap();
        assert_eq!(undone, Undone::Restored);
        assert_eq!(files::inspect(&site.path).unwrap(), before);
        assert_eq!(
            Switch.undo(&cx, &site.params, &before_image).await.unwrap(),
            Undone::Unchanged
        );
    }

    #[tokio::test]
    async fn a_file_goes_there_and_back() {
        let site = site();
        fs::write(&site.path, "oracle").unwrap();
        there_and_back(&site).await;
    }

    #[tokio::test]
    async fn a_link_goes_there_and_back() {
        let site = site();
        std::os::unix::fs::symlink("oracle.toml", &site.path).unwrap();
        there_and_back(&site).await;
    }

    #[tokio::test]
    async fn what_was_absent_is_absent_again() {
        there_and_back(&site()).await;
    }

    /// Killed before anything was replaced, and killed when only the removal of the
    /// saved copy was left: the undo leaves the directory as it was.
    #[tokio::test]
    async fn an_undo_removes_what_a_killed_agent_left() {
        let (site, cx) = (site(), context());
        fs::write(&site.path, "oracle").unwrap();
        let listing = || -> Vec<_> {
            let entries = fs::read_dir(site.path.parent().unwrap()).unwrap();
            let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let before = listing();
        let probe = Switch.probe(&cx, &site.params).await.unwrap();
        let before_image = probe.before_image.unwrap();
        fs::write(files::aside(&site.path, "new"), "half").unwrap();
        fs::write(previous(&site.path), "oracle").unwrap();
        fs::write(files::aside(&previous(&site.path), "new"), "half").unwrap();
        let undone = Switch.undo(&cx, &site.params, &before_image).await.unwrap();
        assert_eq!(undone, Undone::Unchanged);
        assert_eq!(listing(), before);
    }

    #[tokio::test]
    async fn a_foreign_change_is_left_alone() {
        let (site, cx) = (site(), context());
        fs::write(&site.path, "oracle").unwrap();
        let before_image = Switch
            .probe(&cx, &site.params)
            .await
            .unwrap()
            .before_image
            .unwrap();
        Switch
            .execute(&cx, &site.params, Some(&before_image))
            .await
            .unwrap();
        fs::write(&site.path, "somebody else's").unwrap();
        let undone = Switch.undo(&cx, &site.params, &before_image).await.unwrap();
        assert!(matches!(undone, Undone::Drifted(_)), "{undone:?}");
        assert_eq!(fs::read_to_string(&site.path).unwrap(), "somebody else's");
    }
}
