//! Words of a text for comparing texts: lower case, without punctuation, as 64-bit hashes; and the n-grams over them.
//!
//! Text is split at white space and everything but letters and digits is dropped from each piece (the normalization of
//! Brown et al. 2020, appendix C). Scripts that write no spaces (Han, kana, Thai, Lao, Khmer, Burmese) give one word a
//! character, so that n-grams over them mean something too.

/// Calls `visit` with the hash of each word of `text`, in order.
pub(crate) fn for_each_word(text: &str, mut visit: impl FnMut(u64)) {
    for piece in text.split_whitespace() {
        let mut hash = Hash::default();
        for c in piece.chars() {
            if !c.is_alphanumeric() {
                continue;
            }
            if writes_no_spaces(c) {
                hash.take().into_iter().for_each(&mut visit);
                hash.push(c);
                hash.take().into_iter().for_each(&mut visit);
            } else if c.is_ascii() {
                hash.push(c.to_ascii_lowercase());
            } else {
                c.to_lowercase().for_each(|c| hash.push(c));
            }
        }
        hash.take().into_iter().for_each(&mut visit);
    }
}

/// Hashes of the words of `text`, in order.
pub(crate) fn word_hashes(text: &str) -> Vec<u64> {
    let mut words = Vec::new();
    for_each_word(text, |word| words.push(word));
    words
}

/// Hashes of the runs of `n` words; none when there are fewer words.
pub(crate) fn ngrams(words: &[u64], n: usize) -> impl Iterator<Item = u64> + '_ {
    words.windows(n.max(1)).map(run_hash)
}

/// Hash of a run of words, which depends on their order.
pub(crate) fn run_hash(words: &[u64]) -> u64 {
    words.iter().fold(0x9e37_79b9_7f4a_7c15, |hash, word| mix(hash.rotate_left(23) ^ word))
}

/// Spreads the bits of a number over all 64 (Stafford's variant 13 of the MurmurHash3 finalizer).
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// FNV-1a over code points, with a better end.
#[derive(Default)]
struct Hash(Option<u64>);

impl Hash {
    fn push(&mut self, c: char) {
        let hash = self.0.unwrap_or(0xcbf2_9ce4_8422_2325);
        self.0 = Some((hash ^ u64::from(u32::from(c))).wrapping_mul(0x0000_0100_0000_01b3));
    }

    fn take(&mut self) -> Option<u64> {
        self.0.take().map(mix)
    }
}

fn writes_no_spaces(c: char) -> bool {
    matches!(u32::from(c),
        0x0E00..=0x0EFF | 0x1000..=0x109F | 0x1780..=0x17FF
        | 0x3040..=0x30FF | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF | 0x20000..=0x323AF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_punctuation_do_not_count_and_order_does() {
        assert_eq!(word_hashes("The cat, sat!"), word_hashes("the  CAT\nsat"));
        assert_eq!(word_hashes("don't \"stop\" -- now"), word_hashes("dont stop now"));
        assert_ne!(word_hashes("a b"), word_hashes("b a"));
        assert_eq!(word_hashes("... --- !!!"), Vec::<u64>::new());
        assert_eq!(word_hashes("ÉTÉ straße"), word_hashes("été STRAße"));
        let words = word_hashes("a b a b");
        assert_eq!(ngrams(&words, 2).count(), 3);
        assert_eq!(ngrams(&words, 2).next(), ngrams(&words, 2).nth(2));
        assert_ne!(ngrams(&words, 2).next(), ngrams(&words, 2).nth(1));
        assert_eq!(ngrams(&words, 5).count(), 0);
    }

    #[test]
    fn scripts_without_spaces_give_a_word_a_character() {
        assert_eq!(word_hashes("猫が好き").len(), 4);
        assert_eq!(word_hashes("GPT模型2024").len(), 4);
        assert_eq!(word_hashes("مرحبا بالعالم").len(), 2);
        assert_eq!(word_hashes("नमस्ते दुनिया").len(), 2);
    }
}
