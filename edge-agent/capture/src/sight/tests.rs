//! Cameras as they are and as they are meddled with, drawn; 15 pictures a second, time given.

use super::*;

const WIDTH: u32 = 160;
const HEIGHT: u32 = 120;

/// A corridor: panels, a door, a lamp. `light` scales it, `seed` is the exposure's noise of about two levels.
fn corridor(light: f32, seed: u64) -> RgbImage {
    drawn(seed, |x, y| {
        let panels = if x / 13 % 2 == 0 { 96.0 } else { 130.0 };
        let door = if (60..95).contains(&x) && y > 30 { 60.0 } else { panels };
        let lamp = if (20..50).contains(&x) && y < 14 { 210.0 } else { door };
        // Grain of a wall: what a blur takes away first.
        (lamp + ((x * 7 + y * 13) % 5) as f32 * 4.0) * light
    })
}

fn drawn(seed: u64, level: impl Fn(u32, u32) -> f32) -> RgbImage {
    let mut state = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let mut bytes = Vec::new();
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let noise = (state >> 40) as f32 / (1 << 24) as f32 * 6.0 - 3.0;
            bytes.extend([(level(x, y) + noise).clamp(0.0, 255.0) as u8; 3]);
        }
    }
    RgbImage::from_vec(WIDTH, HEIGHT, bytes).unwrap()
}

/// Every pixel the mean of those within `radius`, and new noise on top.
fn blurred(picture: &RgbImage, radius: i64, seed: u64) -> RgbImage {
    drawn(seed, |x, y| {
        let (mut sum, mut count) = (0.0, 0.0);
        for dy in -radius..=radius {
            for dx in -radius..=radius {
                let clamp = |at: i64, side: u32| at.clamp(0, i64::from(side) - 1).unsigned_abs() as u32;
                let (px, py) = (clamp(i64::from(x) + dx, WIDTH), clamp(i64::from(y) + dy, HEIGHT));
                sum += f32::from(picture.pixel(px, py)[1]);
                count += 1.0;
            }
        }
        sum / count
    })
}

/// A camera watched over time.
struct Watched {
    sight: Sight,
    picture: u64,
}

impl Watched {
    /// One that has shown the corridor for a quarter of a minute.
    fn in_daylight() -> Self {
        let mut watched = Self { sight: Sight::new(SightPolicy::default()), picture: 0 };
        assert_eq!(watched.shows(15.0, |seed| corridor(1.0, seed)), None);
        watched
    }

    /// Shows pictures for so many seconds; the first fault told, and after how many seconds.
    fn shows(&mut self, seconds: f64, picture: impl Fn(u64) -> RgbImage) -> Option<(SightFault, f64)> {
        let begin = self.picture;
        while ((self.picture - begin) as f64) < seconds * 15.0 {
            let seen = self.next(&picture(self.picture));
            if let Some(fault) = seen.fault {
                return Some((fault, (self.picture - begin) as f64 / 15.0));
            }
        }
        None
    }

    /// Seconds until no fault is told any more.
    fn well_after(&mut self, picture: impl Fn(u64) -> RgbImage) -> f64 {
        let begin = self.picture;
        while self.next(&picture(self.picture)).fault.is_some() {
            assert!(self.picture - begin < 150, "still told after ten seconds");
        }
        (self.picture - begin) as f64 / 15.0
    }

    fn next(&mut self, picture: &RgbImage) -> Seen {
        self.picture += 1;
        self.sight.see(picture, MonoTime::from_millis(self.picture * 1000 / 15))
    }
}

#[track_caller]
fn assert_told(told: Option<(SightFault, f64)>, fault: SightFault, within: std::ops::Range<f64>) {
    let (found, after) = told.unwrap_or_else(|| panic!("{fault:?} was not told"));
    assert_eq!(found, fault);
    assert!(within.contains(&after), "told after {after} s");
}

#[test]
fn a_frozen_picture_is_never_handed_on_and_told_after_five_seconds() {
    let mut watched = Watched::in_daylight();
    let last = corridor(1.0, 7_777);
    assert!(watched.next(&last).may_pass());
    for _ in 0..60 {
        assert!(!watched.next(&last).may_pass());
    }
    assert_told(watched.shows(10.0, |_| last.clone()), SightFault::Frozen, 0.5..2.0);
    let back = watched.well_after(|seed| corridor(1.0, seed));
    assert!(back <= 2.0, "in order again only after {back} s");
}

#[test]
fn a_frozen_picture_is_over_also_when_what_comes_next_moves() {
    let mut watched = Watched::in_daylight();
    assert_told(watched.shows(10.0, |_| corridor(1.0, 7_777)), SightFault::Frozen, 4.5..6.0);
    let moving = |seed: u64| drawn(seed, |x, _| if (u64::from(x) + seed * 20) % 160 < 80 { 40.0 } else { 200.0 });
    let back = watched.well_after(moving);
    assert!(back <= 2.0, "in order again only after {back} s");
}

#[test]
fn a_loop_is_never_handed_on_and_told_within_a_second() {
    let mut watched = Watched::in_daylight();
    let looped = |picture: u64| corridor(1.0, 100_000 + picture % 45);
    assert_eq!(watched.shows(3.0, looped), None, "the first time round nobody can know");
    let again = watched.next(&looped(watched.picture));
    assert!(!again.usable, "the very first picture that comes again");
    assert_told(watched.shows(5.0, looped), SightFault::Replayed, 0.0..1.0);
    assert!(!watched.next(&looped(watched.picture)).may_pass());
    let back = watched.well_after(|seed| corridor(1.0, seed));
    assert!(back <= 2.0, "in order again only after {back} s");
}

#[test]
fn a_black_picture_is_told_whether_or_not_it_carries_noise() {
    for noise in [false, true] {
        let mut watched = Watched::in_daylight();
        let black = |seed| drawn(if noise { seed } else { 1 }, |_, _| 3.0);
        assert_told(watched.shows(20.0, black), SightFault::Black, 9.5..11.0);
        assert!(watched.well_after(|seed| corridor(1.0, seed)) <= 5.0);
    }
}

#[test]
fn a_covered_lens_is_told() {
    let mut watched = Watched::in_daylight();
    assert_told(watched.shows(20.0, |seed| drawn(seed, |_, _| 90.0)), SightFault::Covered, 9.5..11.0);
    assert!(watched.well_after(|seed| corridor(1.0, seed)) <= 5.0);
}

#[test]
fn a_defocused_lens_is_told() {
    let mut watched = Watched::in_daylight();
    let soft = blurred(&corridor(1.0, 1), 4, 1);
    let defocused = |seed| drawn(seed, |x, y| f32::from(soft.pixel(x, y)[1]));
    assert_told(watched.shows(20.0, defocused), SightFault::Defocused, 9.5..11.0);
    assert!(watched.well_after(|seed| corridor(1.0, seed)) <= 5.0);
}

#[test]
fn a_camera_turned_away_is_told() {
    let mut watched = Watched::in_daylight();
    let elsewhere = |seed| drawn(seed, |x, y| if (x / 20 + y / 15) % 2 == 0 { 40.0 } else { 170.0 });
    assert_told(watched.shows(60.0, elsewhere), SightFault::Turned, 29.0..31.0);
    assert!(watched.well_after(|seed| corridor(1.0, seed)) <= 5.0);
}

#[test]
fn a_night_is_no_fault() {
    let mut watched = Watched::in_daylight();
    // The lights fade, a little of them stays, and they come on again.
    for level in [0.6, 0.3, 0.12, 0.05, 0.12, 0.5, 1.0] {
        assert_eq!(watched.shows(40.0, |seed| corridor(level, seed)), None, "at {level} of the daylight");
    }
}

#[test]
fn lights_that_are_switched_are_no_fault() {
    let mut watched = Watched::in_daylight();
    for level in [0.4, 1.0, 0.5, 0.9] {
        assert_eq!(watched.shows(40.0, |seed| corridor(level, seed)), None, "at {level} of the daylight");
    }
}

#[test]
fn somebody_who_stands_before_the_lens_and_moves_is_no_fault() {
    let mut watched = Watched::in_daylight();
    let face = |seed: u64| {
        let sway = ((seed as f32) / 9.0).sin() * 12.0;
        drawn(seed, |x, y| {
            let (dx, dy) = ((x as f32 - 80.0 - sway) / 60.0, (y as f32 - 60.0) / 55.0);
            let inside = dx * dx + dy * dy < 1.0;
            if inside { 150.0 + 30.0 * dx + ((y / 9) % 2) as f32 * 40.0 } else { f32::from(corridor_pixel(x, y)) }
        })
    };
    assert_eq!(watched.shows(90.0, face), None);
}

fn corridor_pixel(x: u32, y: u32) -> u8 {
    if (60..95).contains(&x) && y > 30 { 60 } else { 110 }
}

#[test]
fn a_few_repeated_pictures_are_left_out_and_told_to_nobody() {
    let mut watched = Watched::in_daylight();
    // An encoder that skips a still scene to the bit between its key frames.
    assert_eq!(watched.shows(60.0, |picture| corridor(1.0, 500_000 + picture / 30)), None);
}

#[test]
fn an_unwatched_camera_may_show_what_it_likes() {
    assert!(Seen::UNWATCHED.may_pass());
}

#[test]
fn pictures_of_any_size_are_watched_without_a_panic() {
    let mut sight = Sight::new(SightPolicy::default());
    for (index, (width, height)) in [(1, 1), (3, 500), (500, 3), (31, 23), (64, 64), (1, 1)].into_iter().enumerate() {
        let picture = RgbImage::from_vec(width, height, vec![90; (width * height * 3) as usize]).unwrap();
        sight.see(&picture, MonoTime::from_millis(index as u64 * 66));
    }
}
