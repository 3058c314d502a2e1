//! The API's own document and the page that shows it: open to anybody, fetched once.

use reqwest::StatusCode;
use reqwest::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH};

use super::process::{Hub, command, data_dir, output, skipped};

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_open_to_anybody_and_the_command_line_prints_the_same() {
    let test = "the_document_is_open_to_anybody_and_the_command_line_prints_the_same";
    if skipped(test) {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let address = format!("{}/v1/openapi.json", hub.https());
    let answer = hub.client().get(&address).send().await.unwrap();
    assert_eq!(
        (answer.status(), &answer.headers()[CONTENT_TYPE]),
        (StatusCode::OK, &"application/json".parse().unwrap())
    );
    assert_eq!(answer.headers()[CACHE_CONTROL], "public, no-cache");
    let tag = answer.headers()[ETAG].clone();
    let text = answer.text().await.unwrap();
    let again = hub.client().get(&address).header(IF_NONE_MATCH, tag).send().await.unwrap();
    assert_eq!((again.status(), again.text().await.unwrap().as_str()), (StatusCode::NOT_MODIFIED, ""));

    let elsewhere = data_dir();
    let mut printing = command(elsewhere.path());
    printing.arg("openapi");
    assert_eq!(String::from_utf8(output(printing).stdout).unwrap(), text, "no hub runs there");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_may_load_its_own_files_and_nothing_else() {
    if skipped("the_page_may_load_its_own_files_and_nothing_else") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let get = async |path: &str| hub.client().get(format!("{}{path}", hub.https())).send().await.unwrap();
    let page = get("/docs").await;
    let policy = page.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let html = page.text().await.unwrap();
    for (attribute, kind) in
        [("src=\"", "text/javascript; charset=utf-8"), ("stylesheet\" href=\"", "text/css; charset=utf-8")]
    {
        let (_, after) = html.split_once(attribute).unwrap();
        let file = get(after.split('"').next().unwrap()).await;
        assert_eq!((file.status(), &file.headers()[CONTENT_TYPE]), (StatusCode::OK, &kind.parse().unwrap()), "{html}");
    }
    assert!(!html.contains("://") && !html.contains("style=") && !html.contains("onclick"), "{html}");
}
