//! Clients of AWS that are kept: one connection for many calls, and never
//! with credentials that the files no longer hold.

#![expect(
    clippy::unwrap_used,
    reason = "tests stop at the first surprise; clippy.toml's exemption misses helpers"
)]

use lockstep_agent::action::{Context, Progress, WorkId};
use lockstep_agent::host::Host;
use lockstep_agent::host::dms::Dms;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const ARN: &str = "arn:aws:dms:eu-central-1:123456789012:task:ABC";

/// For each request: the connection it came on, and its Authorization.
type Requests = Arc<Mutex<Vec<(usize, String)>>>;

/// Answers every request with an empty list.
async fn serve(listener: TcpListener, requests: Requests) {
    for number in 0.. {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(converse(stream, number, requests.clone()));
    }
}

async fn converse(stream: TcpStream, number: usize, requests: Requests) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut length, mut authorization) = (0, String::new());
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let (name, value) = line.trim().split_once(':').unwrap_or_default();
            match name.to_lowercase().as_str() {
                "content-length" => length = value.trim().parse().unwrap(),
                "authorization" => authorization = value.to_owned(),
                _ => {}
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        requests.lock().unwrap().push((number, authorization));
        let body = r#"{"ReplicationTasks":[]}"#;
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.1\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

fn context(dir: &Path, port: u16) -> Context {
    context_with(&format!(
        "region='eu-central-1'\nendpoint_url='http://127.0.0.1:{port}'\n\
         access_key_id_file={:?}\nsecret_access_key_file={:?}\n",
        dir.join("id"),
        dir.join("secret"),
    ))
}

/// A context of a host with these lines in the section of its AWS resource.
fn context_with(aws: &str) -> Context {
    let config = format!(
        "name='a'\ncoordinator='c'\nstate_dir='/s'\n\
         [tls]\nca='a'\ncert='b'\nkey='c'\ntrust_domain='t'\n[aws.dms]\n{aws}"
    );
    Context {
        host: Arc::new(Host::new(toml::from_str(&config).unwrap())),
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
async fn clients_are_kept_until_the_credentials_change() {
    let dir = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| {
        let path = dir.path().join(file);
        std::fs::write(&path, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, mode).unwrap();
    };
    write("id", "FIRST");
    write("secret", "secret");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cx = context(dir.path(), listener.local_addr().unwrap().port());
    let requests = Requests::default();
    tokio::spawn(serve(listener, requests.clone()));

    let ask = async || Dms::of(&cx, "dms").await.unwrap().find(ARN).await.unwrap();
    assert_eq!(ask().await, None);
    assert_eq!(ask().await, None);
    write("id", "SECOND");
    assert_eq!(ask().await, None);

    let requests = requests.lock().unwrap().clone();
    let of = |n: usize, key: &str| requests[n].1.contains(&format!("Credential={key}/"));
    assert_eq!(requests.len(), 3);
    assert!(
        of(0, "FIRST") && of(1, "FIRST") && of(2, "SECOND"),
        "{requests:?}"
    );
    assert_eq!(requests[0].0, requests[1].0, "one connection serves both");
    assert_ne!(requests[1].0, requests[2].0, "new credentials, new clients");
}

/// What DMS and CloudWatch answer, asked of a real account: reads only. Set
/// `LOCKSTEP_AWS_TASK` to the ARN of a forward task, and credentials as the SDK
/// finds them (`AWS_PROFILE`, `AWS_ACCESS_KEY_ID` or an instance's role).
#[tokio::test]
async fn a_real_task_can_be_described() {
    let Ok(task) = std::env::var("LOCKSTEP_AWS_TASK") else {
        println!("skipped: LOCKSTEP_AWS_TASK names no task of a real account");
        return;
    };
    let region = task.split(':').nth(3).unwrap_or_default();
    let cx = context_with(&format!("region='{region}'\n"));
    let params = serde_json::json!({"resource": "dms", "task": task});
    let ready = lockstep_agent::actions::find("dms.task.ready").unwrap();
    let described = ready.describe(&cx, &params).await;
    let described = described.map_err(|error| error.report());
    assert!(described.is_ok(), "{described:?}");
    println!("{:#?}", described.unwrap());
}
