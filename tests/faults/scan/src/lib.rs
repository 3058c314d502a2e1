//! Vectors in bytes: every window that could be one, as f32, f16, bf16 or i8, and what text hides of them.
//!
//! In: embeddings that are known, and bytes. Out: how alike the likest window is to any of them, for each form. Nothing is sampled and
//! nothing is guessed away: a window is compared at every place where one can begin, with every half of every embedding, so what is
//! said of the likest is exact (the tests compare it with a search that has no tricks at all). Left out is what can be no vector of
//! these: windows of mostly zeros, with numbers of a size that no component has, or of one sign alone, as text is. Halves are compared and not wholes:
//! Postgres cuts a long value into pieces of some two kilobytes, and the first half of a vector is in one.
//!
//! Text is read as base64, as hexadecimal digits (lines that are broken in between are joined) and as lists of numbers. What is
//! compressed or encrypted is not found; of Postgres nothing is, since pgvector's type is stored as it is. This is a crate of its own because
//! it is built for speed, which the lab around it is not. No files here: the lab reads them.

mod form;
mod kernel;
mod text;

pub use form::Form;

/// Components of half an embedding.
pub const HALF: usize = 256;
/// So many components of a window are not zero, or it is no vector: pages of a database are mostly zeros.
pub const ENOUGH: usize = HALF / 2;
/// Bytes of the longest window.
const LONGEST: usize = 4 * HALF;
/// Places of one piece: what is made of them stays in the processor's nearer memory.
const PIECE: usize = 1 << 14;

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Windows that were compared.
    pub windows: u64,
    likest: [f32; Form::ALL.len()],
}

impl Seen {
    /// How alike the likest window of a form is to any of the embeddings; 0 if there is none that is alike at all.
    #[must_use]
    pub fn likest(&self, form: Form) -> f32 {
        self.likest[form as usize]
    }

    /// The forms in which somebody was found, with how alike they are.
    pub fn found(&self) -> impl Iterator<Item = (Form, f32)> + '_ {
        Form::ALL.into_iter().map(|form| (form, self.likest(form))).filter(|(form, likest)| *likest > form.somebodys())
    }

    /// Adds what was seen elsewhere.
    pub fn merge(&mut self, other: &Self) {
        self.windows += other.windows;
        for (mine, more) in self.likest.iter_mut().zip(other.likest) {
            *mine = mine.max(more);
        }
    }

    fn add(&mut self, form: Form, best: kernel::Best) {
        self.windows += best.windows;
        self.likest[form as usize] = self.likest[form as usize].max(best.cosine);
    }
}

/// The embeddings that are looked for.
#[derive(Clone, Debug)]
pub struct Scan {
    halves: kernel::Halves,
    forms: &'static [Form],
    reads_text: bool,
    piece: usize,
}

impl Scan {
    /// Looks for these embeddings, of any length that is a multiple of [`HALF`], in every form.
    #[must_use]
    pub fn of(embeddings: &[Vec<f32>]) -> Self {
        let halves = kernel::Halves::of(embeddings.iter().flat_map(|embedding| embedding.chunks_exact(HALF)));
        Self { halves, forms: &Form::BINARY, reads_text: true, piece: PIECE }
    }

    /// Looks for vectors in the form alone in which Postgres has them.
    #[must_use]
    pub fn as_stored(self) -> Self {
        Self { forms: &[Form::F32], reads_text: false, ..self }
    }

    /// Looks through these bytes.
    #[must_use]
    pub fn look(&self, content: &[u8]) -> Seen {
        let mut seen = Seen::default();
        self.binary(content, &mut seen);
        if self.reads_text {
            text::each_hidden(content, |bytes| self.binary(bytes, &mut seen));
            text::each_list(content, |numbers| {
                seen.add(Form::Numbers, kernel::floats(&self.halves, numbers));
            });
        }
        seen
    }

    /// Piece after piece; each has the windows that begin in it.
    fn binary(&self, content: &[u8], seen: &mut Seen) {
        let (mut floats, mut integers) = (Vec::new(), Vec::new());
        for from in (0..content.len()).step_by(self.piece) {
            // Much of a disk is empty. Each component that is not zero has a byte that is not.
            let to = content.len().min(from + self.piece + LONGEST - 1);
            if content[from..to].iter().filter(|byte| **byte != 0).count() < ENOUGH {
                continue;
            }
            for form in self.forms {
                let to = content.len().min(from + self.piece + form.width() * HALF - 1);
                let piece = &content[from..to];
                if *form == Form::I8 {
                    integers.clear();
                    integers.extend(piece.iter().map(|byte| i16::from(byte.cast_signed())));
                    seen.add(*form, kernel::integers(&self.halves, &integers));
                    continue;
                }
                for first in 0..form.width().min(piece.len()) {
                    form.read(&piece[first..], &mut floats);
                    seen.add(*form, kernel::floats(&self.halves, &floats));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
