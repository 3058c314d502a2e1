//! Head pose as three angles, decoded from the pose model's bins, and how far it is from frontal.
//!
//! In: 3 × 66 logits. Out: [`HeadPose`] in degrees. Deliberately absent: the crop (see [`crate::crop`]) and the model.

/// What the pose model reads as pitch when a person looks straight into the camera, in degrees.
///
/// Measured: frontal pictures give −5…−12°; the middle is taken. [`HeadPose::frontal_deviation_deg`] subtracts it,
/// so that looking straight ahead is not counted as looking down.
pub const FRONTAL_PITCH_DEG: f32 = -8.5;

/// Bins per angle in the pose model's output; bin *i* stands for `3·i − 99` degrees.
pub const POSE_BINS: usize = 66;

/// Euler angles of a head in degrees, as the pose model reports them (the pitch bias is still in them).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadPose {
    /// Turn to the side; above zero the nose points towards the left edge of the picture.
    pub yaw_deg: f32,
    /// Nod; frontal reads about [`FRONTAL_PITCH_DEG`].
    pub pitch_deg: f32,
    /// Tilt towards a shoulder. Alignment removes it, so it counts least.
    pub roll_deg: f32,
}

/// Why the pose model's output is not a pose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoseError {
    /// An output does not have [`POSE_BINS`] values.
    #[error("pose output has {found} bins, {POSE_BINS} are expected")]
    Length {
        /// Values found.
        found: usize,
    },
    /// NaN or infinity among the logits.
    #[error("pose output is not finite")]
    NotFinite,
}

impl HeadPose {
    /// Decodes the logits of the three outputs: the expectation of `3·i − 99` under their softmax.
    ///
    /// # Errors
    /// When an output has not 66 values or one is not finite.
    pub fn from_bins(yaw: &[f32], pitch: &[f32], roll: &[f32]) -> Result<Self, PoseError> {
        Ok(Self { yaw_deg: angle_deg(yaw)?, pitch_deg: angle_deg(pitch)?, roll_deg: angle_deg(roll)? })
    }

    /// Degrees between this pose and looking straight into the camera: yaw and unbiased pitch together.
    ///
    /// Roll is left out because alignment rotates it away.
    #[must_use]
    pub fn frontal_deviation_deg(&self) -> f32 {
        self.yaw_deg.hypot(self.pitch_deg - FRONTAL_PITCH_DEG)
    }

    /// Whether all three angles are finite.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.yaw_deg.is_finite() && self.pitch_deg.is_finite() && self.roll_deg.is_finite()
    }
}

fn angle_deg(logits: &[f32]) -> Result<f32, PoseError> {
    if logits.len() != POSE_BINS {
        return Err(PoseError::Length { found: logits.len() });
    }
    if !logits.iter().all(|logit| logit.is_finite()) {
        return Err(PoseError::NotFinite);
    }
    let highest = logits.iter().copied().fold(f32::MIN, f32::max);
    let (mut mass, mut moment) = (0.0f64, 0.0f64);
    for (bin, logit) in logits.iter().enumerate() {
        let weight = f64::from(logit - highest).exp();
        mass += weight;
        moment += weight * bin as f64;
    }
    Ok((moment / mass * 3.0 - 99.0) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sharp_peak_is_read_as_its_angle() {
        let mut logits = [0.0f32; POSE_BINS];
        logits[43] = 100.0;
        let pose = HeadPose::from_bins(&logits, &logits, &logits).unwrap();
        assert!((pose.yaw_deg - 30.0).abs() < 1e-3);
    }

    #[test]
    fn equal_bins_are_read_as_the_middle() {
        assert!((angle_deg(&[1.0; POSE_BINS]).unwrap() + 1.5).abs() < 1e-3);
    }

    #[test]
    fn the_frontal_bias_of_pitch_is_not_a_deviation() {
        let pose = HeadPose { yaw_deg: 0.0, pitch_deg: FRONTAL_PITCH_DEG, roll_deg: 20.0 };
        assert_eq!(pose.frontal_deviation_deg(), 0.0);
    }

    #[test]
    fn wrong_output_is_refused() {
        assert_eq!(angle_deg(&[0.0; 3]), Err(PoseError::Length { found: 3 }));
        let mut logits = [0.0f32; POSE_BINS];
        logits[7] = f32::NAN;
        assert_eq!(angle_deg(&logits), Err(PoseError::NotFinite));
    }
}
