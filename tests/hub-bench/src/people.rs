//! People by the thousand, with templates drawn by chance: as far from each other as strangers are.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloud_hub::domain::ids::{PersonId, TenantId};
use cloud_hub::domain::people::{Access, Profile};
use cloud_hub::keys::{Custody, NewTemplate};
use face_core::Embedding;
use face_core::gallery::TemplateId;
use futures::StreamExt as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rig::Rig;

/// People being made at once: their key files and commits wait for the same disk.
const AT_ONCE: usize = 32;
/// How much of a probe is not its template: two pictures of one person score about 0.8.
const NOISE: f32 = 0.75;
/// Docked by nothing and given nothing.
const QUALITY: f32 = 0.5;

/// Somebody, and a template of theirs.
pub(crate) type Somebody = (PersonId, Embedding);

/// A tenant's people, the same at each call.
pub(crate) fn drawn(count: usize) -> Vec<Somebody> {
    let mut random = StdRng::seed_from_u64(5);
    (0..count).map(|_| (PersonId(Uuid::from_u128(random.random())), direction(&mut random))).collect()
}

/// Some direction in the space of templates.
fn direction(random: &mut StdRng) -> Embedding {
    loop {
        // The sum of uniform numbers is near enough to a normal one for an even spread of directions.
        let raw = std::array::from_fn(|_| (0..6).map(|_| random.random::<f32>() - 0.5).sum());
        if let Ok(embedding) = Embedding::from_raw(raw) {
            return embedding;
        }
    }
}

/// Another picture of somebody.
pub(crate) fn seen_again(template: &Embedding, seed: u64) -> Embedding {
    let noise = direction(&mut StdRng::seed_from_u64(seed));
    let mixed = std::array::from_fn(|i| template.as_slice()[i] + NOISE * noise.as_slice()[i]);
    Embedding::from_raw(mixed).expect("two directions are not opposite")
}

/// A stranger.
pub(crate) fn stranger(seed: u64) -> Embedding {
    direction(&mut StdRng::seed_from_u64(!seed))
}

/// As a request names a template.
pub(crate) fn template(space: &str, embedding: &Embedding) -> Value {
    let bytes: Vec<u8> = embedding.as_slice().iter().flat_map(|number| number.to_le_bytes()).collect();
    json!({ "space_id": space, "vector": STANDARD.encode(bytes), "quality": QUALITY })
}

/// The same rows as the index wants them.
pub(crate) fn rows(people: &[Somebody]) -> Vec<(face_core::gallery::PersonId, TemplateId, Embedding)> {
    let row = |(id, embedding): &Somebody| (face_core::gallery::PersonId(id.0), TemplateId(id.0), embedding.clone());
    people.iter().map(row).collect()
}

/// Enrols them as the hub does after its models have made a template; `tell` hears of every thousandth.
pub(crate) async fn enrol(
    rig: &Rig,
    tenant: &str,
    space: &str,
    people: &[Somebody],
    tell: impl Fn(usize),
) -> Result<()> {
    let made = people.iter().cloned().map(|somebody| enrol_one(&rig.custody, tenant, space, somebody));
    let mut made = futures::stream::iter(made).buffer_unordered(AT_ONCE).enumerate();
    while let Some((number, done)) = made.next().await {
        done?;
        if (number + 1) % 1_000 == 0 {
            tell(number + 1);
        }
    }
    Ok(())
}

/// The same for one.
pub(crate) async fn enrol_one(
    custody: &Custody,
    tenant: &str,
    space: &str,
    (person, embedding): Somebody,
) -> Result<()> {
    let tenant = TenantId(Uuid::parse_str(tenant).context("the tenant's id")?);
    let profile = Profile { external_id: None, name: String::from("Somebody"), email: None, access: Access::default() };
    custody.create_person(tenant, person, profile, Some(Vec::new()), "bench").await?;
    let new = NewTemplate {
        space_id: space.to_owned(),
        model_version: String::from("bench"),
        quality: QUALITY,
        photographs: 1,
        embedding: Box::new(*embedding.as_slice()),
        mark: None,
    };
    custody.enrol(tenant, person, None, new, "bench").await?;
    Ok(())
}

/// The space of the models that the hub uses.
pub(crate) async fn space(asking: &crate::rig::Asking, photograph: &[u8]) -> Result<String> {
    let request = asking.request(reqwest::Method::POST, "/v1/recognition/embed");
    let request = request.json(&json!({ "image": STANDARD.encode(photograph) }));
    let made = crate::rig::answer(request, reqwest::StatusCode::OK).await?;
    Ok(made["space_id"].as_str().context("no space in the answer")?.to_owned())
}
