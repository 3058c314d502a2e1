//! What people read: one text a code and one a hint, by id, in every language.
//!
//! In: an id (`code.<word>`, `hint.<word>` or `prompt.<word>`) and a language. Out: the text. A test proves that no id lacks a language.
//! Deliberately absent: names and numbers; a text says what to do, the fields beside it say how much.

use crate::codes::Code;

/// A language of the texts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Language {
    /// `en`.
    #[default]
    English,
    /// `id`.
    Indonesian,
}

impl Language {
    /// Every language.
    pub const ALL: &[Self] = &[Self::English, Self::Indonesian];

    /// The tag (BCP 47).
    pub const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Indonesian => "id",
        }
    }

    /// The language of a tag, looking only at what stands before the first hyphen.
    pub fn from_tag(tag: &str) -> Option<Self> {
        let primary = tag.split('-').next()?;
        Self::ALL.iter().copied().find(|language| language.tag().eq_ignore_ascii_case(primary))
    }
}

/// The text with this id, or `None` when there is none.
pub fn text(id: &str, language: Language) -> Option<&'static str> {
    let (_, english, indonesian) = TEXTS.iter().find(|(known, ..)| *known == id)?;
    Some(match language {
        Language::English => english,
        Language::Indonesian => indonesian,
    })
}

/// The text of a code.
pub fn code_text(code: Code, language: Language) -> &'static str {
    const UNLISTED: (&str, &str) =
        ("A reason that this program does not know", "Alasan yang tidak dikenal program ini");
    let word = code.as_str();
    let found = TEXTS.iter().find(|(id, ..)| id.strip_prefix("code.") == Some(word));
    let (english, indonesian) = found.map_or(UNLISTED, |(_, english, indonesian)| (english, indonesian));
    match language {
        Language::English => english,
        Language::Indonesian => indonesian,
    }
}

/// The text of a code's hint.
pub fn hint_text(code: Code, language: Language) -> Option<&'static str> {
    text(code.entry()?.hint, language)
}

/// Id, English, Indonesian.
const TEXTS: &[(&str, &str, &str)] = &[
    ("code.granted", "Access granted", "Akses diberikan"),
    ("code.unknown", "Not recognised", "Tidak dikenali"),
    ("code.ambiguous", "Could not tell two people apart", "Dua orang tidak dapat dibedakan"),
    ("code.not_this_person", "On record as somebody else", "Tercatat sebagai orang lain"),
    ("code.liveness_failed", "This does not look like a living person", "Ini tidak tampak seperti orang hidup"),
    ("code.liveness_still", "The face does not move", "Wajah tidak bergerak"),
    ("code.liveness_undecided", "There was too little time to check", "Waktu untuk memeriksa terlalu singkat"),
    ("code.liveness_unavailable", "The liveness check is not available", "Pemeriksaan keaslian wajah tidak tersedia"),
    ("code.challenge_failed", "That was another movement", "Gerakannya berbeda dari yang diminta"),
    ("code.challenge_timeout", "The movement took too long", "Gerakan terlalu lama"),
    ("code.face_too_small", "The face is too far away", "Wajah terlalu jauh"),
    ("code.face_blurred", "The face is blurred", "Wajah buram"),
    ("code.face_too_dark", "The face is too dark", "Wajah terlalu gelap"),
    ("code.face_too_bright", "The face is too bright", "Wajah terlalu terang"),
    ("code.face_turned", "The face is turned away", "Wajah menghadap ke samping"),
    ("code.face_occluded", "The face is covered", "Wajah tertutup"),
    ("code.face_cut_off", "Part of the face is outside the picture", "Sebagian wajah di luar gambar"),
    ("code.decision_stale", "The decision came too late", "Keputusan terlambat"),
    ("code.person_removed", "This person was removed", "Orang ini telah dihapus"),
    ("code.person_expired", "This person's access is not valid now", "Akses orang ini tidak berlaku saat ini"),
    ("code.not_permitted", "Not permitted at this door now", "Tidak diizinkan di pintu ini saat ini"),
    ("code.door_locked_down", "This door is in lock-down", "Pintu ini sedang dikunci total"),
    ("code.gallery_unavailable", "The list of people is not available", "Daftar orang tidak tersedia"),
    ("code.models_unavailable", "Face recognition is not available", "Pengenalan wajah tidak tersedia"),
    ("code.camera_stalled", "The camera gives no picture", "Kamera tidak memberi gambar"),
    ("code.photo_unreadable", "The photograph cannot be read", "Foto tidak dapat dibaca"),
    ("code.photo_too_large", "The photograph is too large", "Foto terlalu besar"),
    ("code.no_face", "No face was found", "Wajah tidak ditemukan"),
    ("code.several_faces", "More than one face was found", "Lebih dari satu wajah ditemukan"),
    ("code.photos_differ", "The photographs show different people", "Foto-foto menunjukkan orang yang berbeda"),
    ("code.duplicate_person", "This person is enrolled already", "Orang ini sudah terdaftar"),
    (
        "code.anchor_is_person",
        "This picture probably shows the person",
        "Gambar ini mungkin menunjukkan orang tersebut",
    ),
    ("code.too_many_anchors", "No more negative anchors can be added", "Jangkar negatif tidak dapat ditambah lagi"),
    ("code.root_mismatch", "The list of people differs from the hub's", "Daftar orang berbeda dengan milik hub"),
    ("code.store_doubtful", "The stored list of people is damaged", "Daftar orang yang tersimpan rusak"),
    ("code.epoch_changed", "The list of people was begun anew", "Daftar orang dimulai ulang"),
    ("code.behind_log", "The device was away for too long", "Perangkat terlalu lama tidak terhubung"),
    ("code.snapshot_forged", "A copy of the people did not come from the hub", "Salinan data orang bukan dari hub"),
    ("code.snapshot_damaged", "A copy of the people is damaged", "Salinan data orang rusak"),
    (
        "code.snapshot_gone",
        "This copy of the people is no longer offered",
        "Salinan data orang ini tidak lagi ditawarkan",
    ),
    ("code.lease_expired", "The device had no contact for too long", "Perangkat terlalu lama tanpa kontak"),
    ("code.ordered", "Ordered by an operator", "Diperintahkan oleh operator"),
    ("code.stream_conflict", "Two devices use one identity", "Dua perangkat memakai satu identitas"),
    (
        "code.batch_refused",
        "The device sent events that cannot be stored",
        "Perangkat mengirim kejadian yang tidak dapat disimpan",
    ),
    ("code.unauthorized", "The credential is missing or not valid", "Kredensial tidak ada atau tidak sah"),
    ("code.totp_required", "A code of the second factor is needed", "Kode faktor kedua diperlukan"),
    ("code.totp_setup_required", "A second factor must be set up first", "Faktor kedua harus disiapkan dahulu"),
    ("code.forbidden", "The credential does not allow this", "Kredensial tidak mengizinkan ini"),
    ("code.tenant_suspended", "This tenant is not served at present", "Penyewa ini sedang tidak dilayani"),
    ("code.quota_reached", "This tenant has as many as it may have", "Penyewa ini sudah mencapai batas kuotanya"),
    ("code.feature_off", "This tenant does not have this feature", "Penyewa ini tidak memiliki fitur ini"),
    ("code.not_found", "There is no such thing", "Tidak ditemukan"),
    ("code.method_not_allowed", "This method is not allowed here", "Metode ini tidak diizinkan di sini"),
    ("code.invalid_request", "The request is malformed", "Permintaan tidak sah"),
    ("code.invalid_field", "A field has a value that is not allowed", "Nilai suatu isian tidak diizinkan"),
    ("code.missing_field", "A field is missing", "Ada isian yang kurang"),
    ("code.unknown_field", "A field is not known", "Ada isian yang tidak dikenal"),
    ("code.conflict", "It clashes with what is there", "Bertentangan dengan data yang ada"),
    ("code.claim_used", "The claim token was used already", "Token klaim sudah dipakai"),
    ("code.claim_expired", "The claim token has expired", "Token klaim sudah kedaluwarsa"),
    ("code.claim_unknown", "The claim token is not known", "Token klaim tidak dikenal"),
    ("code.csr_invalid", "The certificate request is not acceptable", "Permintaan sertifikat tidak dapat diterima"),
    ("code.certificate_expired", "The device's certificate has expired", "Sertifikat perangkat sudah kedaluwarsa"),
    ("code.command_expired", "The command came too late", "Perintah datang terlambat"),
    (
        "code.command_unknown",
        "The device does not know this command or door",
        "Perangkat tidak mengenal perintah atau pintu ini",
    ),
    ("code.not_configured", "The device is not set up for this", "Perangkat tidak disiapkan untuk ini"),
    ("code.twin_invalid", "The settings do not fit this device", "Pengaturan tidak cocok untuk perangkat ini"),
    ("code.twin_failed", "The device did not start with the settings", "Perangkat gagal mulai dengan pengaturan itu"),
    ("code.twin_unreadable", "The settings kept by the device are damaged", "Pengaturan di perangkat rusak"),
    ("code.precondition_failed", "It was changed by somebody else", "Sudah diubah oleh orang lain"),
    ("code.precondition_required", "The version that is changed is missing", "Versi yang diubah tidak disebutkan"),
    (
        "code.idempotency_key_reused",
        "This idempotency key was used for another request",
        "Kunci idempotensi ini sudah dipakai untuk permintaan lain",
    ),
    (
        "code.idempotency_in_progress",
        "The request with this key is being carried out",
        "Permintaan dengan kunci ini sedang dijalankan",
    ),
    (
        "code.idempotency_no_answer",
        "There is no answer to give again for this key",
        "Tidak ada jawaban yang dapat diberikan lagi untuk kunci ini",
    ),
    ("code.device_offline", "The device is not connected", "Perangkat tidak terhubung"),
    ("code.device_revoked", "The device was revoked", "Perangkat telah dicabut"),
    ("code.payload_too_large", "The request is too large", "Permintaan terlalu besar"),
    ("code.unsupported_media_type", "The media type is not accepted", "Jenis media tidak diterima"),
    ("code.address_not_allowed", "This address may not be called", "Alamat ini tidak boleh dipanggil"),
    ("code.rate_limited", "Too many requests", "Terlalu banyak permintaan"),
    ("code.unavailable", "The service is not available at the moment", "Layanan sedang tidak tersedia"),
    ("code.timeout", "It took too long", "Terlalu lama"),
    ("code.internal", "Something went wrong in the hub", "Terjadi kesalahan di hub"),
    ("hint.welcome", "Please come in.", "Silakan masuk."),
    ("hint.ask_to_be_enrolled", "Ask the reception to enrol you.", "Minta resepsionis untuk mendaftarkan Anda."),
    ("hint.look_straight", "Look straight into the camera.", "Lihat lurus ke kamera."),
    (
        "hint.show_yourself",
        "Stand before the camera yourself; pictures are refused.",
        "Berdirilah sendiri di depan kamera; gambar ditolak.",
    ),
    ("hint.move_head", "Move your head a little.", "Gerakkan kepala sedikit."),
    ("hint.stay_in_view", "Stay before the camera for a moment.", "Tetaplah di depan kamera sebentar."),
    (
        "hint.do_as_asked",
        "Look into the camera and do what the display asks, one movement at a time.",
        "Lihat ke kamera dan ikuti permintaan di layar, satu gerakan demi satu gerakan.",
    ),
    (
        "hint.show_code",
        "Send the code that your authenticator app shows now, or a recovery code.",
        "Kirim kode yang sekarang tampil di aplikasi autentikator Anda, atau kode pemulihan.",
    ),
    (
        "hint.set_up_code",
        "Set up an authenticator app: POST /v1/me/totp, then /v1/me/totp/confirm.",
        "Siapkan aplikasi autentikator: POST /v1/me/totp, lalu /v1/me/totp/confirm.",
    ),
    ("hint.ask_operator", "Ask the operator.", "Hubungi operator."),
    ("hint.come_closer", "Come closer.", "Mendekatlah."),
    ("hint.hold_still", "Hold still for a moment.", "Diam sebentar."),
    ("hint.more_light", "Turn towards the light.", "Menghadaplah ke arah cahaya."),
    ("hint.less_light", "Step out of the bright light.", "Menjauhlah dari cahaya terang."),
    ("hint.uncover_face", "Uncover your face.", "Buka penutup wajah Anda."),
    ("hint.centre_face", "Bring the whole face into the picture.", "Posisikan seluruh wajah di dalam gambar."),
    ("hint.look_again", "Look into the camera again.", "Lihat ke kamera sekali lagi."),
    (
        "hint.device_not_ready",
        "This door is not ready. Use another way in or ask the operator.",
        "Pintu ini belum siap. Gunakan jalan lain atau hubungi operator.",
    ),
    ("hint.check_camera", "Check the camera's power, cable and address.", "Periksa daya, kabel, dan alamat kamera."),
    ("hint.send_jpeg_or_png", "Send a JPEG or PNG photograph.", "Kirim foto JPEG atau PNG."),
    ("hint.send_smaller_photo", "Send a smaller photograph.", "Kirim foto yang lebih kecil."),
    ("hint.be_alone", "Only one person may be in the picture.", "Hanya satu orang boleh ada di dalam gambar."),
    ("hint.same_person", "Send photographs of one person only.", "Kirim foto dari satu orang saja."),
    (
        "hint.check_duplicate",
        "Compare the two people; if they are different, enrol with ?allow_duplicate=true.",
        "Bandingkan kedua orang itu; jika berbeda, daftarkan dengan ?allow_duplicate=true.",
    ),
    (
        "hint.check_anchor",
        "Check that the picture shows somebody else; if it does, send it with ?confirm=true.",
        "Pastikan gambar menunjukkan orang lain; jika benar, kirim dengan ?confirm=true.",
    ),
    ("hint.remove_anchor", "Remove a negative anchor first.", "Hapus satu jangkar negatif dahulu."),
    ("hint.check_credential", "Check the credential and what it allows.", "Periksa kredensial dan izinnya."),
    ("hint.check_address", "Check the address and the method.", "Periksa alamat dan metode."),
    (
        "hint.check_request",
        "Check the request against the API description.",
        "Cocokkan permintaan dengan deskripsi API.",
    ),
    (
        "hint.new_claim_token",
        "Make a new claim token for the device at the hub.",
        "Buat token klaim baru untuk perangkat di hub.",
    ),
    (
        "hint.check_clock",
        "Check the device's clock; it renews its certificate by itself.",
        "Periksa jam perangkat; sertifikat diperbarui sendiri.",
    ),
    ("hint.order_again", "Give the command again if it is still wanted.", "Beri perintah lagi jika masih diperlukan."),
    (
        "hint.check_configuration",
        "Compare the door's local id with the device's configuration, or update the device.",
        "Cocokkan id pintu dengan konfigurasi perangkat, atau perbarui perangkat.",
    ),
    (
        "hint.check_settings",
        "Correct the desired settings of the device; it says what is wrong.",
        "Perbaiki pengaturan yang diinginkan; perangkat menyebutkan apa yang salah.",
    ),
    (
        "hint.read_again",
        "Read it again, and send the change with the ETag that comes with it.",
        "Baca lagi, lalu kirim perubahan beserta ETag yang menyertainya.",
    ),
    (
        "hint.new_idempotency_key",
        "Use a new key for each request that is not the same.",
        "Gunakan kunci baru untuk setiap permintaan yang berbeda.",
    ),
    (
        "hint.look_up",
        "Look whether it was done. To do it once more, use a new key.",
        "Periksa apakah sudah dilakukan. Untuk melakukannya sekali lagi, gunakan kunci baru.",
    ),
    ("hint.send_less", "Send less at a time.", "Kirim lebih sedikit sekaligus."),
    ("hint.use_public_https", "Use a public https address.", "Gunakan alamat https publik."),
    ("hint.try_later", "Try again later.", "Coba lagi nanti."),
    ("hint.report_fault", "Report it with the trace id.", "Laporkan beserta trace id."),
    (
        "prompt.turn_left",
        "Turn your head to the left, then look ahead.",
        "Tolehkan kepala ke kiri, lalu lihat ke depan.",
    ),
    (
        "prompt.turn_right",
        "Turn your head to the right, then look ahead.",
        "Tolehkan kepala ke kanan, lalu lihat ke depan.",
    ),
    ("prompt.nod", "Nod, then look ahead.", "Anggukkan kepala, lalu lihat ke depan."),
    ("prompt.blink", "Shut both eyes for a moment.", "Pejamkan kedua mata sebentar."),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::guidance::Prompt;

    #[test]
    fn every_code_and_hint_has_a_text_in_every_language() {
        for code in Code::ALL {
            for language in Language::ALL {
                assert!(text(&format!("code.{code}"), *language).is_some(), "code.{code} {}", language.tag());
                assert!(hint_text(*code, *language).is_some(), "{:?} {}", code.entry(), language.tag());
            }
        }
        for (prompt, language) in
            Prompt::ALL.into_iter().flat_map(|prompt| Language::ALL.iter().map(move |to| (prompt, to)))
        {
            assert!(!prompt.text(*language).is_empty(), "{prompt:?} {}", language.tag());
        }
    }

    #[test]
    fn texts_are_there_once_and_differ_between_languages() {
        let ids: HashSet<_> = TEXTS.iter().map(|(id, ..)| id).collect();
        assert_eq!(ids.len(), TEXTS.len());
        for (id, english, indonesian) in TEXTS {
            assert!(!english.trim().is_empty() && !indonesian.trim().is_empty(), "{id}");
            assert_ne!(english, indonesian, "{id}");
        }
    }

    #[test]
    fn no_text_is_left_over() {
        let used: HashSet<String> =
            Code::ALL.iter().flat_map(|code| [format!("code.{code}"), code.entry().unwrap().hint.to_owned()]).collect();
        let used: HashSet<String> =
            used.into_iter().chain(Prompt::ALL.map(|prompt| prompt.text_id().to_owned())).collect();
        for (id, ..) in TEXTS {
            assert!(used.contains(*id), "{id} belongs to no code and no prompt");
        }
    }

    #[test]
    fn languages_are_found_by_their_tags() {
        assert_eq!(Language::from_tag("id-ID"), Some(Language::Indonesian));
        assert_eq!(Language::from_tag("EN"), Some(Language::English));
        assert_eq!(Language::from_tag("fr"), None);
    }
}
