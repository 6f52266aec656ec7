//! The sentences of the stories as templates (`grammar`), by what they tell.
//!
//! `{P}` does something, with pronouns `{he}`, `{him}`, `{his}`; `{N}` is `{P}` or a pronoun where that is clear; `{Q}`,
//! with `{qhe}`, `{qhim}`, `{qhis}`, has it done to them; `{T}` and `{U}` are things, `{S}` a spot and `{O}` the spot before.
//! Lists named `UNSEEN` are for held-out stories alone; each of their templates holds one of `UNSEEN_MARKS`.

/// Words that tell an unseen phrasing: no training document contains one.
pub(super) const UNSEEN_MARKS: &[&str] = &["ended up", "handed over", "you tell me"];

pub(super) const INTRO: &[&str] = &[
    "Once upon a time, there was a <trait> {kind} named {P} who [loved|liked] to <love>.",
    "Once there was a <trait> {kind} called {P}, and {he} [loved|liked] to <love>.",
    "In <where_live> <near>, there lived a <trait> {kind} named {P}.",
    "There was once a <trait> {kind} named {P} who lived in <where_live> <near>.",
    "{P} was a <trait> {kind} who liked to <love> on {weather} days.",
    "A <trait> {kind} named {P} lived in <where_live> <near>.",
    "One {weather} {tod}, a <trait> {kind} named {P} was {inside}.",
    "It was a {weather} {tod}, and a <trait> {kind} named {P} was {inside}.",
    "Long ago, a <trait> {kind} named {P} lived <near> and loved to <love>.",
    "This is the story of {P}, a <trait> {kind} who loved to <love>.",
    "On a {weather} {tod}, a <trait> {kind} called {P} [woke up|got up] [early|late] [and washed {his} face|and had <food>|and looked out of the window].",
    "Everyone {inside} knew {P}, the <trait> {kind} who loved to <love>.",
];

pub(super) const SET_SUNNY: &[&str] = &[
    "The sun was [shining|warm|bright] over {place}, and <nature>.",
    "It was a [bright|warm|lovely|fine] {tod} {inside}, and <nature>.",
    "{N} was {inside}, where <nature>.",
    "\"What a [fine|lovely|bright|beautiful] {tod},\" [said|thought] {P}, for <nature>.",
    "{P} looked around {place} and saw how <nature>.",
];
pub(super) const SET_SUNNY_IN: &[&str] = &[
    "Sunlight [came|fell|poured] through the [big|small|open|clean] windows, and {P} [liked it|smiled|felt warm|hummed] {inside}.",
    "Outside, <nature>, and {P} opened a window {inside}.",
    "It was a [bright|warm|lovely|fine] {tod}, and {P} could see from the window how <nature>.",
];
pub(super) const SET_RAINY: &[&str] = &[
    "Outside, the rain [tapped|drummed|pattered|splashed] on the [roof|windows|leaves|street], so {P} stayed {inside}.",
    "It was raining [hard|softly|all {tod}], but {P} was [warm|dry|safe|cozy] {inside}.",
    "{P} could hear the rain [tapping|drumming|falling] on the [roof|windows|trees], and {he} was glad to be {inside}.",
    "Because it was raining [so hard|again|outside], {P} spent the {tod} {inside}.",
];
pub(super) const SET_SNOWY: &[&str] = &[
    "Snow was falling [softly|slowly|thickly] on the [roofs|streets|fields|trees], but {P} was [warm|cozy|snug] {inside}.",
    "It was snowing, so {P} spent the [whole|long|cold] {tod} {inside}.",
    "White snow covered the [roofs|hills|streets], and {P} [drank hot cocoa|warmed {his} cold nose|watched the snowflakes] {inside}.",
    "It was so cold outside that {P} wore {his} [thick|warm|woolly] [coat|sweater|scarf] even {inside}.",
];
pub(super) const SET_WINDY: &[&str] = &[
    "A [strong|cool|playful|wild] wind blew [over|around|across] {place}, and {P} held on to {his} [coat|hat|sleeves|ears].",
    "The wind [whistled|sang|howled] around {place}, and [leaves|bits of paper|dry petals] flew past {P}.",
    "It was a windy {tod}, and {P} [laughed|shivered|smiled] when the wind [pulled at|played with|messed up] {his} [sleeves|hair|coat].",
];
pub(super) const SET_CLOUDY: &[&str] = &[
    "Gray clouds hung over the [town|hills|roofs|trees], but {P} was in a [good|fine|cheerful|merry] mood.",
    "The sky was [gray|full of clouds|pale], and {P} [hoped|wished] for a little sun.",
    "It was a [cool|cloudy|gray|quiet] {tod}, and {P} wanted to [do something fun|play|learn something new|have an adventure].",
];

pub(super) const FRIEND: &[&str] = &[
    "{P}'s {rel} {Q} was [there|{inside}], too, [playing <game>|eating <food>|humming a [little|merry|silly] tune|smiling at everyone].",
    "{Q}, {P}'s {rel}, came to [visit|play|help|say hello] that {tod}.",
    "{N} was with {his} {rel} {Q}, and they had just played <game>.",
    "{his} {rel} {Q}, who was very <trait>, [came along|joined {him}|was there as well].",
    "{P} had a <trait> {rel} named {Q}, and the two of them liked to play <game>.",
    "That {tod}, {P} and {his} {rel} {Q} [wanted to|were going to] play <game>.",
];

pub(super) const FRIEND_PLACE: &[&str] = &[
    "{when} {tod}, {P} was {inside} with {his} {rel} {Q}.",
    "{when} {tod}, {P} and {his} {rel} {Q} were [together ||both ]{inside}.",
    "{when} {tod}, {P} went to meet {his} {rel} {Q} {inside}.",
    "{P}'s {rel} {Q} was very <trait>, and {when} {tod} the two of them met {inside}.",
    "{when} {tod}, {P} met {his} {rel} {Q} {inside}, and they played <game>.",
];

pub(super) const THIRD_AGAIN: &[&str] = &[
    "Then {P} came back and said [hello|hi] <smile>.",
    "Just then, {P} walked by again, [humming a tune|playing <game>|eating <food>].",
    "{P} was still there and [watched|listened|came closer] <eyes>.",
];

pub(super) const THIRD: &[&str] = &[
    "A <trait> {kind} named {P} was [there|{inside}], too.",
    "Then {P}, a <trait> {kind}, came by and said [hello|good {tod}] <smile>.",
    "Not far away, a <trait> {kind} called {P} was [playing <game>|eating <food>|singing].",
    "Just then, a <trait> {kind} named {P} [walked|came|hopped] up to them.",
];

pub(super) const HAS: &[&str] = &[
    "{N} had a {T} and took it everywhere because <loved>.",
    "Of all {his} things, {P} liked {his} {T} best because <loved>.",
    "{P} had brought a {T} [to show {his} friends|to play with|from home], and {he} loved it because <loved>.",
    "In {his} [arms|hands] {P} carried a {T} that had been a present from {his} [aunt|uncle|cousin|teacher].",
    "{N} had a {T}, and {he} [looked at it|played with it|took care of it] every [day|morning|evening] because <loved>.",
    "{P} was very proud of {his} {T} because <loved>.",
];

pub(super) const FIND: &[&str] = &[
    "[Then|Soon|Suddenly|All at once|A moment later], {P} saw a {T} {S} and picked it up <hands>.",
    "A {T} lay {S}, and {P} picked it up <hands> [to look at it|and turned it around|and smiled].",
    "{P} was playing <game> when {he} found a {T} {S} and picked it up.",
    "[Then|Soon|Suddenly|All at once|A moment later], {P} noticed a {T} {S}, and {he} <hands> took it.",
    "{N} was about to go and eat <food> when {he} saw a {T} {S} and picked it up.",
];

pub(super) const LIES: &[&str] = &[
    "There was a {T} {S}[, and {P} looked at it <eyes>| that nobody had used for a [week|month|year]].",
    "A {T} was {S}, and {P} [saw|noticed] it [at once|right away|from far away].",
    "{P} could see a {T} {S}[| and wondered whose it was| and liked it very much].",
];

pub(super) const PUT: &[&str] = &[
    "<soon>, {P} put the {t} {S} <keep>.",
    "{P} put the {t} {S} <keep>.",
    "{P} <hands> put the {t} {S} <keep>.",
    "<soon>, {P} left the {t} {S} <keep>.",
    "{P} <hands> laid the {t} {S} <keep>.",
    "<soon>, {N} placed the {t} {S} <keep>.",
    "\"I will leave my {t} here,\" said {P}, and {he} put it {S} <keep>.",
];
pub(super) const PUT_UNSEEN: &[&str] = &[
    "<soon>, the {t} that {P} was carrying ended up {S} <order>.",
    "Thanks to {P}, the {t} ended up {S} <order>.",
];

pub(super) const MOVE: &[&str] = &[
    "While {R} was away, {P} took the {t} that was {O} and put it {S} <tidy>.",
    "But {P} came along, picked up the {t} that lay {O}, and <hands> put it {S} <tidy>.",
    "When {R} was not looking, {P} picked up the {t} and put it {S} <tidy>.",
    "A little later, {P} found the {t} {O} and put it {S} <tidy>.",
    "{P} saw the {t} {O}, so {he} picked it up and put it {S} <tidy>.",
];
pub(super) const MOVE_UNSEEN: &[&str] = &[
    "{P} picked up the {t} that was {O}, and it ended up {S} <order>.",
    "While {R} was away, {P} took the {t}, and it ended up {S} <order>.",
];

pub(super) const GIVE: &[&str] = &[
    "<soon>, {P} gave the {t} to {Q} <smile>.",
    "\"This {t} is for you,\" said {P}, and {he} gave it to {Q} <smile>.",
    "{P} thought for a moment and then gave {Q} the {t} <smile>.",
    "{P} held out the {t} <smile>, and {Q} took it <hands>.",
    "\"You can have my {t}, {Q},\" said {P}, and {he} gave it to {qhim} <hands>.",
    "So {P} gave {Q} the {t} [and a big hug|and a pat on the back|<smile>].",
];
pub(super) const GIVE_UNSEEN: &[&str] = &[
    "<soon>, {P} handed over the {t} to {Q} <smile>.",
    "Then the {t} was handed over to {Q} by {P}, who was [very|so] <happy>.",
];
pub(super) const GIVE_BACK: &[&str] = &[
    "\"Here is your {t},\" said {P}, and {he} gave it back to {Q} <smile>.",
    "{P} gave the {t} back to {Q} <smile>.",
    "<soon>, {P} gave {Q} the {t} back <hands>.",
];

pub(super) const TAKE: &[&str] = &[
    "{P} went to look, and there it was {S}, so {he} picked up the {t} <hands>.",
    "{N} ran over, saw the {t} {S}, and picked it up <hands>.",
    "The {t} was {S}, just as {Q} had said, and {P} took it <hands>.",
    "{P} found the {t} {S} and hugged it <hands>.",
];
pub(super) const TAKE_PLAIN: &[&str] = &[
    "{P} found the {t} {S} and picked it up <hands>.",
    "{N} <move> over to the {t} {S} and picked it up.",
    "<soon>, {P} saw the {t} {S} and took it <hands>.",
];

pub(super) const SEEK: &[&str] = &[
    "{P} looked {S}, but the {t} was not there.",
    "When {P} came back for the {t}, {he} looked {S}, but it was gone.",
    "\"Where is my {t}?\" asked {P} when {he} looked {S} and it was not there.",
    "{N} looked <eyes> {S} for the {t}, but {he} could not see it.",
];
pub(super) const SEEK_GAME: &[&str] = &[
    "{P} looked {S}, but the {t} was not there.",
    "{N} ran to look {S}, but there was no {t}.",
    "\"Is the {t} {S}?\" asked {P}, but it was not.",
    "{P} [carefully|quickly|slowly|quietly] searched {S}, but {he} did not find the {t}.",
];

pub(super) const FEEL_BAD: &[&str] = &[
    "{P} was [so|very] {feel} because {cause}.",
    "{P} [sat down|sighed|began to cry|looked at the ground|hung {his} head] and felt {feel} because {cause}.",
    "Poor {P} was {feel} because {cause}.",
    "Because {cause}, {P} [felt|was] [very|quite|so] {feel}.",
    "{P} looked {feel} because {cause}.",
];
pub(super) const WHAT_IS_WRONG: &[&str] = &[
    "\"<cry>, {Q}, what is the matter?\" asked {P} in a [soft|kind|quiet|gentle] voice.",
    "\"Why do you look so {feel}, {Q}?\" asked {P} <voice>.",
    "{P} saw {Q} and wanted to [help|cheer {qhim} up|make {qhim} smile] right away.",
    "{P} sat down next to {Q} and [listened quietly|held {qhis} hand|waited patiently|offered {qhim} <food>].",
];
pub(super) const CHEERED: &[&str] = &[
    "{Q} [smiled|laughed|stopped crying] and was <happy> again, because {P} was such a [good|kind|dear|true] friend.",
    "\"<thanks> for the {t}, {P},\" said {Q} <said>.",
    "That made {Q} so <happy> that {qhe} [danced|jumped up and down|sang a song|spun around|hugged {P}].",
    "{Q} looked at the {t} and felt [much|a lot|a little] better.",
];

pub(super) const ASK_WHERE: &[&str] = &[
    "\"<hello>, {Q}, have you seen my {t}?\" asked {P}.",
    "{P} <move> to {Q} and asked [about|for] the {t}.",
    "\"<cry>, I cannot find my {t},\" {P} told {Q}.",
    "\"Please help me look for my {t}, {Q},\" said {P}.",
];
pub(super) const TELL_WHERE: &[&str] = &[
    "\"Do not worry, I put the {t} {S},\" said {P} <said>.",
    "\"Sorry, I moved the {t}, and now it is {S},\" said {P} <voice>.",
    "{P} told {Q} that the {t} was {S}.",
    "\"I remember, the {t} is {S},\" {P} answered <said>.",
];
pub(super) const RELIEF: &[&str] = &[
    "{P} was so <happy> to have the {t} back that {he} [danced|sang|jumped for joy|hugged {Q}|laughed out loud].",
    "\"<thanks>, {Q}, I missed my {t},\" said {P} <said>.",
    "{P} hugged {Q} and promised to [share|take better care of] the {t}.",
    "\"<welcome>, {P},\" said {Q}, and they both looked at the {t} <eyes>.",
];

pub(super) const COUNT: &[&str] = &[
    "{N} had {nI} in {his} [basket|bag|pocket|bucket|bowl].",
    "In {his} [basket|bag|box|bucket], {P} had {nI}[| from the day before| for {his} friends].",
    "{N} counted {his} {items} <hands>, and there were {n} of them.",
    "{P} had {nI}, and {he} [put them in a row|counted them twice|showed them to everyone|smelled them one by one].",
];
pub(super) const COUNT_ONE: &[&str] = &[
    "{N} had only {nI} in {his} [basket|bag|pocket|bucket|bowl].",
    "{P} had just {nI}, and {he} wished for more.",
];
pub(super) const GAIN_PICKED: &[&str] = &[
    "<soon>, {P} picked {n} more[| <hands>| with {his} own hands| and put {it_them} with the {items}].",
    "{P} found {n} more {item_s} [on a low branch|in the grass|near the path|behind a bush], so {he} took {it_them} <hands>.",
    "A [nice|kind|friendly|cheerful] farmer gave {P} {n} more {item_s}.",
];
pub(super) const GAIN_BAKED: &[&str] = &[
    "<soon>, {P} baked {n} more {item_s}[| for everyone| in the hot oven| with honey on top].",
    "A [nice|kind|friendly|cheerful] baker gave {P} {n} more {item_s}.",
    "{N} got {n} more {item_s} from {his} [aunt|uncle|neighbor|cousin], who [loved|liked] to bake.",
];
pub(super) const GAIN_FOUND: &[&str] = &[
    "<soon>, {P} found {n} more [on the ground|near a puddle|in the dust|under a bench|by the path], so {he} kept {it_them}.",
    "{P} found {n} more {item_s} [on the ground|near a puddle|in the dust|under a stone|by the path].",
    "{N} got {n} more {item_s} from {his} [aunt|uncle|neighbor|cousin] as a [gift|surprise|reward].",
];
pub(super) const NOW_TOTAL: &[&str] = &[
    "Now {P} had {nI}[| in all| altogether].",
    "{P} counted again and said, \"Now I have {nI}.\"",
    "That made {nI}, and {P} was <happy>.",
];
pub(super) const LOSE_EAT: &[&str] = &[
    "{P} was hungry, so {he} ate {n} of the {items} [quickly|slowly|happily|right away].",
    "<soon>, {N} ate {n} of {his} {items}, and {it_they} tasted [sweet|wonderful|very good|great].",
];
pub(super) const LOSE_DROP: &[&str] = &[
    "<soon>, {N} dropped {n} of {his} {items} in the [pond|river|deep mud|tall grass] and could not get {it_them} back.",
    "There was a hole in {P}'s [bag|pocket|basket], and {he} lost {n} of {his} {items}.",
];
pub(super) const SHARE: &[&str] = &[
    "{P} gave {n} of {his} {items} to {Q} <smile>.",
    "<soon>, {P} shared {his} {items} and gave {Q} {n} of them <hands>.",
    "\"These are for you, {Q},\" said {P}, and {he} gave {qhim} {nI} <smile>.",
];
pub(super) const SHARE_ONE: &[&str] = &[
    "{P} gave one of {his} {items} to {Q} <smile>.",
    "\"This one is for you, {Q},\" said {P}, and {he} gave {qhim} one of {his} {items} <hands>.",
];
pub(super) const LEFT: &[&str] = &[
    "Now {P} had {nI} left.",
    "{P} still had {nI}, and that was enough.",
    "So {P} had {nI} left[| for later| to take home].",
];

pub(super) const ADMIRE: &[&str] = &[
    "\"What a nice {t},\" said {P} <said>, looking at {Q}.",
    "{P} liked {Q}'s {t} and wished {he} had one, too.",
    "\"I wish I had a {t} like yours, {Q},\" said {P} <voice>.",
    "{P} could not stop looking at the {t} that {Q} had.",
];
pub(super) const OFFER: &[&str] = &[
    "\"Shall we trade, {Q}, my {t} for your {U}?\" asked {P} <voice>.",
    "\"I will give you my {t} if you give me your {U},\" {P} said to {Q}.",
    "{P} asked {Q} to swap the {U} for the {t}.",
];
pub(super) const SWAP: &[&str] = &[
    "So {P} gave the {T} to {Q}, and {Q} gave the {U} to {P} <smile>.",
    "{Q} [liked the idea|nodded|said yes], so {P} gave {qhim} the {T} and got the {U} for it.",
    "They both agreed, so {Q} took the {T} and gave {P} the {U} <hands>.",
];
pub(super) const SWAP_UNSEEN: &[&str] =
    &["{P} handed over the {T} to {Q}, and {Q} handed over the {U} to {P} <smile>."];
pub(super) const BOTH_HAPPY: &[&str] = &[
    "{P} and {Q} were both <happy> and played with the {t} and the {U} until [supper|dinner|bedtime|the sun went down].",
    "\"That was a good trade, {Q},\" said {P}, and they laughed <mood>.",
    "Now {P} and {Q} each had something new, and they felt <happy>.",
];

pub(super) const HIDE_IDEA: &[&str] = &[
    "\"Let us play a game, {Q}, and I will hide my {t},\" said {P} <said>.",
    "{P} told {Q} to close {qhis} eyes and not to peek at the {t}.",
    "{P} wanted to play, so {he} asked {Q} to look for the {t}.",
];
pub(super) const HIDE: &[&str] = &[
    "While {Q} counted to {n}, {P} hid the {t} {S}.",
    "{P} <move> around on tiptoe and <hands> hid the {t} {S}.",
    "{Q} closed {qhis} eyes, and {P} hid the {t} {S}.",
];
pub(super) const HIDE_UNSEEN: &[&str] = &["{Q} closed {qhis} eyes, and the {t} that {P} hid ended up {S}."];
pub(super) const SEEK_FOUND: &[&str] = &[
    "At last, {P} looked {S} and found the {t}.",
    "Then {P} saw something {S}, and it was the {t}, so {he} took it <hands>.",
    "\"I found the {t},\" cried {P}, and {he} picked it up {S}.",
];
pub(super) const GAME_WON: &[&str] = &[
    "\"You are a good finder, {P},\" said {Q} <said>.",
    "{Q} laughed and told {P} that it had been a [fine|clever|funny|good] game.",
    "{P} was <happy> and did a little dance for {Q}.",
];

pub(super) const ERRAND: &[&str] = &[
    "\"Please bring the {t} to {R}, {Q},\" said {P} <said>.",
    "{P} asked {Q} to find the {t} and take it to {R}.",
    "\"{R} needs the {t}, so can you carry it there, {Q}?\" asked {P}.",
];
pub(super) const ON_THE_WAY: &[&str] = &[
    "On the way to {Q}, {P} [saw a [snail|frog|butterfly|rainbow|funny cloud]|met a [friendly|sleepy|noisy] [dog|cat|goose]|jumped over a puddle|sang a song about <food>|stopped to smell the flowers], but {he} did not forget {his} job.",
    "{P} <move> all the way to {Q} and held the {t} [tightly|carefully|with both hands|high up].",
    "It was a long way to {Q}, but {P} [did not give up|walked on and on|kept going|whistled a tune].",
];
pub(super) const GRATEFUL: &[&str] = &[
    "\"<thanks> for bringing the {t}, {P},\" said {Q} <said>.",
    "{Q} was <happy> to get the {t} and offered {P} <food>.",
    "\"You are a great helper, {P},\" said {Q}, who needed the {t} very much.",
];

pub(super) const BREAK: &[&str] = &[
    "Then {P} broke the {t} because {cause}.",
    "<soon>, {P} dropped the {t}, and it broke because {cause}.",
    "Crack went the {t}, and it was {P} who had broken it because {cause}.",
    "But {P} broke the {t} by accident because {cause}.",
];
pub(super) const SORRY: &[&str] = &[
    "\"I am so sorry about the {t}, {Q},\" said {P} <voice>.",
    "{P} told {Q} the truth about the {t} and said sorry <voice>.",
    "\"<cry>, look at the {t},\" {P} said to {Q}.",
];
pub(super) const MEND: &[&str] = &[
    "{P} fixed the {t} with {tool} <hands>.",
    "\"I can fix that,\" said {P}, and {he} mended the {t} with {tool}.",
    "{P} sat down, took {tool}, and <hands> mended the {t}.",
    "It took a [long|little|short] while, but {P} mended the {t} with {tool}.",
];
pub(super) const MENDED: &[&str] = &[
    "\"It is as good as new, {P},\" said {Q}, and {qhe} [hugged|thanked] {him} for fixing the {t}.",
    "{Q} was <happy> because the {t} was whole again.",
    "\"<thanks> for mending the {t}, {P},\" said {Q} <said>.",
];

pub(super) const GO: &[&str] =
    &["First, {P} <move> to {L} [with an empty bag|with a song|with quick steps|in a good mood|to look around]."];
pub(super) const GO_NEXT: &[&str] = &[
    "After that, {P} <move> to {L} [to look around|to rest a little|to meet a friend|with a song|[happily|cheerfully|merrily|gladly]].",
    "Then {N} <move> on to {L} [to look around|to see what was new|with quick steps|[happily|cheerfully|merrily|gladly]].",
    "When {he} was done there, {P} <move> to {L}[| [happily|cheerfully|merrily|gladly]| and waved at everyone].",
];
pub(super) const GO_LAST: &[&str] = &[
    "Last of all, {P} <move> to {L} [[happily|cheerfully|merrily|gladly]|with tired feet|with a full heart|humming].",
    "Before going home, {P} <move> to {L} [to say goodbye|[happily|cheerfully|merrily|gladly]|for a short rest].",
];
pub(super) const SIGHTS: &[&str] = &[
    "There {he} [saw|met] [an old man who was feeding birds|a girl with a long braid|a dog with one white ear|a man who sold hot nuts|a woman who was painting a boat|a clown with big shoes|a boy on a tall bike|two cats asleep in the sun], and {P} [waved|smiled|said hello|watched for a while].",
    "{P} [drank|bought] [some cold water|a cup of juice|a glass of lemonade] and watched how <nature>.",
    "{P} played <game> with [the other children|a new friend|some ducks|a small dog] and got [very|a bit|quite] tired.",
    "{P} [rested|sat down|stood still|waited] for a [while|moment|minute], and <nature>.",
];
pub(super) const SIGHTS_IN: &[&str] = &[
    "There {he} [saw|met] [an old man with round glasses|a girl with a long braid|a boy with a broken arm|a tall woman who knew everything|a baby in a red wagon|a teacher with a loud laugh], and {P} [waved|smiled|said hello|listened for a while].",
    "It was quiet there, and {P} [read about|drew a picture of|learned a lot about] [whales|dinosaurs|trains|bees|the moon|old ships|volcanoes|lions|bridges].",
    "{P} played <game> with [the other children|a new friend|two twins] and got [very|a bit|quite] tired.",
];
pub(super) const GOODBYE: &[&str] = &[
    "\"See you later, {Q},\" said {P}, for {he} wanted to [see the world|go for a long walk|explore|visit many places].",
    "{Q} had to go home for <food>, so {P} went for a walk alone.",
    "{P} waved to {Q} and set out on a long walk.",
];
pub(super) const WANT_ITEMS: &[&str] = &[
    "{N} wanted to [bring|give|show] some {items} to {his} [grandma|teacher|aunt|mother|new neighbor].",
    "\"I need some {items} for [a party|a game|a picnic|my friends|a surprise],\" said {P} <said>.",
    "It was a good {tod} to get some {items}, thought {P}, who was hungry for [fun|adventure].",
    "{P} loved {items} more than anything, and so did {Q}.",
    "{P} and {Q} were going to [share some {items}|make a picture with {items}|play shop with {items}].",
];
pub(super) const MESSY: &[&str] = &[
    "Everything was in the wrong place {inside}, so {P} and {Q} wanted to clean up before [lunch|supper|the party|the guests came].",
    "\"What a mess,\" said {P}, looking around {place} with {Q}.",
    "{P} and {Q} had to tidy up {inside} because [guests were coming|a party was planned|nobody could find anything|it was cleaning day].",
];
pub(super) const CLEAN: &[&str] = &[
    "Now {place} looked [neat|lovely|clean|as good as new], and {P} and {Q} [rested|danced|cheered|sat down] <mood>.",
    "\"We did it, {Q},\" said {P} <said>.",
    "{P} and {Q} were tired but <happy>, and they ate <food>.",
];

pub(super) const PET_SAD: &[&str] = &[
    "The {t} was all alone and [shivered a little|made a sad little sound|looked for its home|seemed very hungry], so {P} [stroked it gently|talked to it <voice>|gave it [some milk|a crumb of bread|a bit of apple|a drink of water]].",
    "\"You must be lost, little one,\" {P} said <voice> to the {t}.",
    "The {t} looked up at {P} and [blinked|yawned|sneezed|shook its ears], so {he} held it [close|tightly|gently|carefully].",
];
pub(super) const PET_ASK: &[&str] = &[
    "\"Is this {t} yours, {Q}?\" asked {P}, but {Q} shook {qhis} head.",
    "{P} asked {Q} about the {t}, but it was not {qhers}.",
    "\"I have never seen that {t} before, {P},\" said {Q} <voice>.",
];
pub(super) const PET_OWNER: &[&str] = &[
    "Then they heard {P} calling [sadly|loudly|with tears in {his} eyes] for {his} {t}.",
    "\"That is my {t},\" cried {P}, who had looked for it [all day|everywhere|since breakfast].",
    "At last, they met {P}, who had been searching for {his} {t} [all day|everywhere|since breakfast].",
];

pub(super) const RESTS: &[&str] = &[
    "All the while, a <coat> {animal} [slept|sat|rested|lay] {S}.",
    "A <coat> {animal} was [sleeping|sitting|resting|hiding] {S} and did not [move|mind|look up|make a sound].",
    "Nobody saw the <coat> {animal} that [slept|sat|rested|hid] {S}.",
    "\"Look, there is a <coat> {animal} {S},\" said {P} <voice>.",
    "{P} waved to a <coat> {animal} that [sat|slept|rested] {S}.",
];
pub(super) const LATER: &[&str] = &[
    "The next day, they told {P}, a <trait> {kind}, all about it.",
    "Even {P}, a <trait> {kind}, heard about it [the next day|a week later|that evening] and [laughed|clapped|smiled|wanted to hear more].",
    "\"I wish I had been there,\" said {P}, a <trait> {kind}, when {he} heard the story [the next day|that evening].",
];
pub(super) const LATER_KNOWN: &[&str] = &[
    "The next day, they [talked about it|played <game>|ate <food>] with {P}.",
    "And {P} [told everyone about it|hummed a [happy|little|soft|new] song|smiled all the time] on the way home.",
    "{P} never forgot that {tod}, either.",
    "\"That was [fun|a fine {tod}|something new],\" said {P} <said>.",
];

pub(super) const CLOSE: &[&str] = &[
    "That night, {P} fell asleep and dreamed of <dream>.",
    "In the evening, {P} and {Q} ate <food> and talked about [their day|the big day|all that had happened].",
    "From that day on, {P} and {Q} played <game> together [every week|whenever they could|after school|on Sundays].",
    "{P} learned that <lesson>, and {Q} [agreed|thought so, too|nodded].",
    "\"I think <lesson>,\" said {P}, and {Q} [smiled|nodded|agreed].",
    "When the [moon|first star|evening star] came up, {P} [yawned|said good night to {Q}|waved to {Q}] and dreamed of <dream>.",
    "{P} never forgot that <lesson>.",
    "And so {P} and {Q} went home for <food>, <happy> and a little tired.",
    "{P} went to bed that night feeling <happy>, and {he} dreamed of <dream>.",
    "They lived [happily|merrily|in peace] ever after, and {P} still loved to <love>.",
    "After that day, {P} and {Q} were [the best of friends|closer than ever|always kind to each other], and they often played <game>.",
    "{P} told {his} [mother|father|grandma|family] everything over <food>, and they were [so|very] [happy|glad] for {him}.",
];

pub(super) const LEFT_THERE: &[&str] = &[
    "{P} was <happy> to hear it and left the {t} where it was.",
    "\"Then the {t} can stay there, {Q},\" said {P} <said>.",
];
pub(super) const GAVE_UP: &[&str] = &[
    "\"I give up, {Q}, where is the {t}?\" asked {P}, but {Q} only [laughed|smiled|winked].",
    "{P} never found the {t}, and {Q} [kept the secret|won the game|was <happy>].",
];
pub(super) const TIDY: &[&str] = &[
    "{P} took the {t} and put it {S} <order>.",
    "{P} <hands> picked up the {t} and put it {S} <order>.",
    "So {P} carried the {t} away and left it {S} <order>.",
    "\"That does not belong there,\" said {P}, and {he} put the {t} {S}.",
];
pub(super) const TIDY_UNSEEN: &[&str] = &["{P} picked up the {t}, and it ended up {S} <order>."];
pub(super) const PET_HOME: &[&str] = &[
    "{Q} hugged the {t} and thanked {P} [again and again|[many times|over and over]|with all {qhis} heart].",
    "\"I was so worried about my {t}, {P},\" said {Q} <said>.",
    "{Q} was <happy> to have the {t} back and would not let it go.",
];
pub(super) const LEND: &[&str] = &[
    "\"You may play with the {t}, {Q},\" said {P}, and {he} gave it to {qhim} <smile>.",
    "{Q} wanted to try the {t}, so {P} gave it to {qhim} <hands>.",
    "<soon>, {P} let {Q} have a turn and gave {qhim} the {t} <smile>.",
];
pub(super) const DELIVER: &[&str] = &[
    "\"Here is the {t} that you need,\" said {P}, and {he} gave it to {Q} <smile>.",
    "When {P} arrived, {he} gave the {t} to {Q} <smile>.",
    "{P} found {Q} at last and gave {qhim} the {t} <hands>.",
];
pub(super) const GIVE_REWARD: &[&str] = &[
    "To say thank you, {P} gave {Q} the {t} <smile>.",
    "\"You were so kind to me that I want you to have my {t},\" said {P}, and {he} gave it to {Q} <hands>.",
    "{P} gave {Q} the {t} as a thank-you present <smile>.",
    "\"Now I have something for you, {Q},\" said {P}, and {he} gave {qhim} the {t} <smile>.",
];
pub(super) const GIVE_TO_MEND: &[&str] = &[
    "\"Can you mend the {t}, {Q}?\" asked {P}, and {he} gave it to {qhim} <voice>.",
    "{P} gave the broken {t} to {Q} and asked for help <voice>.",
];
pub(super) const GIVE_PET: &[&str] = &[
    "<soon>, {P} gave the {t} to {Q} <smile>.",
    "{P} put the {t} into {Q}'s arms <hands>, for it belonged to {qhim}.",
    "So {P} <hands> gave the {t} back to {Q}.",
];

pub(super) const FAREWELL: &[&str] = &[
    "\"This was the best {tod} of the [week|month|year], {Q},\" said {P} <said>.",
    "\"I hope we can play <game> again [tomorrow|soon], {Q},\" said {P} <said>.",
    "{P} gave {Q} a big hug [that lasted a long time|before they said goodbye|and a kiss on the nose|and did not want to let go].",
    "{P} [smiled|laughed] and asked {Q} to play <game> [tomorrow|the next day|once more].",
    "And {P} was [very|so] <happy> to have a friend like {Q}.",
    "{P} and {Q} were friends [for a long, long time|forever|from then on], and they often played <game>.",
];

pub(super) const THANKFUL: &[&str] = &[
    "\"<thanks> for the {t}, {P},\" said {Q} <said>.",
    "That made {Q} so <happy> that {qhe} [danced|jumped up and down|sang a song|spun around|hugged {P}].",
    "{Q} was <happy> and showed the {t} to everyone.",
    "{Q} had always wanted a {t}, so {qhe} was very <happy>.",
];
