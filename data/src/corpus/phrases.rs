//! The sentences of the stories as templates (`grammar`), by what they tell.
//!
//! `{P}` does something, with pronouns `{he}`, `{him}`, `{his}`; `{N}` is `{P}` or a pronoun where that is clear; `{Q}`,
//! with `{qhe}`, `{qhim}`, `{qhis}`, has it done to them; `{T}` and `{U}` are things, `{S}` a spot and `{O}` the spot before.
//! Lists named `UNSEEN` are for held-out stories alone; each of their templates holds one of `UNSEEN_MARKS`.

/// Words that tell an unseen phrasing: no training document contains one.
pub(super) const UNSEEN_MARKS: &[&str] = &["ended up", "handed over", "Can you tell me"];

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
    "{P}'s {rel} {Q} was [there|{inside}], too, [playing <game>|eating <food>|humming a [little|merry|silly] tune|looking at the clouds].",
    "{Q}, {P}'s {rel}, came to [visit|play|help|say hello] that {tod}.",
    "{N} was with {his} {rel} {Q}, and they had just played <game>.",
    "{his} {rel} {Q}, who was very <trait>, [came along|joined {him}|was there as well].",
    "{P} had a <trait> {rel} named {Q}, and the two of them liked to play <game>.",
    "That {tod}, {P} and {his} {rel} {Q} [wanted to|were going to] play <game>.",
];

pub(super) const FRIEND_PLACE: &[&str] = &[
    "That {tod}, {P} was {inside} with {his} {rel} {Q}.",
    "One {weather} {tod}, {P} and {his} {rel} {Q} were {inside}.",
    "{P} and {his} {rel} {Q} wanted to spend the {tod} {inside}.",
    "{P}'s {rel} {Q} was very <trait>, and one {tod} the two of them met {inside}.",
    "One {tod}, {P} met {his} {rel} {Q} {inside}, and they played <game>.",
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
    "{N} had a {T}, and {he} [looked at it|played with it|cleaned it] every [day|morning|evening] because <loved>.",
    "{P} was very proud of {his} {T} because <loved>.",
];

pub(super) const FIND: &[&str] = &[
    "<soon>, {P} saw a {T} {S} and picked it up <hands>.",
    "A {T} lay {S}, and {P} picked it up <hands> [to look at it|and turned it around|and smiled].",
    "{P} was playing <game> when {he} found a {T} {S} and picked it up.",
    "<soon>, {P} noticed a {T} {S}, and {he} <hands> took it.",
    "{N} was about to go and eat <food> when {he} saw a {T} {S} and picked it up.",
];

pub(super) const LIES: &[&str] = &[
    "There was a {T} {S}[, and {P} looked at it <eyes>| that nobody had used for a [week|month|year]].",
    "A {T} was {S}, and {P} [saw|noticed] it [at once|right away|from far away].",
    "{P} could see a {T} {S}[| and wondered whose it was| and liked it very much].",
];

pub(super) const PUT: &[&str] = &[
    "<soon>, {P} put the {T} {S} <keep>.",
    "{P} put the {T} {S} <keep>.",
    "{P} <hands> put the {T} {S} <keep>.",
    "<soon>, {P} left the {T} {S} <keep>.",
    "{P} <hands> laid the {T} {S} <keep>.",
    "<soon>, {N} placed the {T} {S} <keep>.",
    "\"I will leave my {T} here,\" said {P}, and {he} put it {S} <keep>.",
];
pub(super) const PUT_UNSEEN: &[&str] = &[
    "<soon>, the {T} that {P} was carrying ended up {S} <keep>.",
    "Thanks to {P}, the {T} ended up {S} <keep>.",
];

pub(super) const MOVE: &[&str] = &[
    "While {R} was away, {P} took the {T} that was {O} and put it {S} <tidy>.",
    "But {P} came along, picked up the {T} that lay {O}, and <hands> put it {S} <tidy>.",
    "When {R} was not looking, {P} picked up the {T} and put it {S} <tidy>.",
    "A little later, {P} found the {T} {O} and put it {S} <tidy>.",
    "{P} saw the {T} {O}, so {he} picked it up and put it {S} <tidy>.",
];
pub(super) const MOVE_UNSEEN: &[&str] = &[
    "{P} picked up the {T} that was {O}, and it ended up {S} <tidy>.",
    "While {R} was away, {P} took the {T}, and it ended up {S} <tidy>.",
];

pub(super) const GIVE: &[&str] = &[
    "<soon>, {P} gave the {T} to {Q} <smile>.",
    "\"This {T} is for you,\" said {P}, and {he} gave it to {Q} <smile>.",
    "{P} thought for a moment and then gave {Q} the {T} <smile>.",
    "{P} held out the {T} <smile>, and {Q} took it <hands>.",
    "\"You can have my {T}, {Q},\" said {P}, and {he} gave it to {qhim} <hands>.",
    "So {P} gave {Q} the {T} [and a big hug|and a pat on the back|<smile>].",
];
pub(super) const GIVE_UNSEEN: &[&str] = &[
    "<soon>, {P} handed over the {T} to {Q} <smile>.",
    "Then the {T} was handed over to {Q} by {P} <smile>.",
];
pub(super) const GIVE_BACK: &[&str] = &[
    "\"Here is your {T},\" said {P}, and {he} gave it back to {Q} <smile>.",
    "{P} gave the {T} back to {Q} <smile>.",
    "<soon>, {P} gave {Q} the {T} back <hands>.",
];

pub(super) const TAKE: &[&str] = &[
    "{P} went to look, and there it was {S}, so {he} picked up the {T} <hands>.",
    "{N} ran over, saw the {T} {S}, and picked it up <hands>.",
    "The {T} was {S}, just as {Q} had said, and {P} took it <hands>.",
    "{P} found the {T} {S} and hugged it <hands>.",
];
pub(super) const TAKE_PLAIN: &[&str] = &[
    "{P} found the {T} {S} and picked it up <hands>.",
    "{N} <move> over to the {T} {S} and picked it up.",
    "<soon>, {P} saw the {T} {S} and took it <hands>.",
];

pub(super) const SEEK: &[&str] = &[
    "{P} looked {S}, but the {T} was not there.",
    "When {P} came back for the {T}, {he} looked {S}, but it was gone.",
    "\"Where is my {T}?\" asked {P} when {he} looked {S} and it was not there.",
    "{N} looked <eyes> {S} for the {T}, but {he} could not see it.",
];
pub(super) const SEEK_GAME: &[&str] = &[
    "{P} looked {S}, but the {T} was not there.",
    "{N} ran to look {S}, but there was no {T}.",
    "\"Is the {T} {S}?\" asked {P}, but it was not.",
    "{P} <eyes> searched {S}, but {he} did not find the {T}.",
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
    "\"<thanks> for the {T}, {P},\" said {Q} <said>.",
    "That made {Q} so <happy> that {qhe} [danced|jumped up and down|sang a song|spun around|hugged {P}].",
    "{Q} looked at the {T} and felt [much|a lot|a little] better.",
];

pub(super) const ASK_WHERE: &[&str] = &[
    "\"<hello>, {Q}, have you seen my {T}?\" asked {P}.",
    "{P} <move> to {Q} and asked [about|for] the {T}.",
    "\"<cry>, I cannot find my {T},\" {P} told {Q}.",
    "\"Please help me look for my {T}, {Q},\" said {P}.",
];
pub(super) const TELL_WHERE: &[&str] = &[
    "\"Do not worry, I put the {T} {S},\" said {P} <said>.",
    "\"Sorry, I moved the {T}, and now it is {S},\" said {P} <voice>.",
    "{P} told {Q} that the {T} was {S}.",
    "\"I remember, the {T} is {S},\" {P} answered <said>.",
];
pub(super) const RELIEF: &[&str] = &[
    "{P} was so <happy> to have the {T} back that {he} [danced|sang|jumped for joy|hugged {Q}|laughed out loud].",
    "\"<thanks>, {Q}, I missed my {T},\" said {P} <said>.",
    "{P} hugged {Q} and promised to [share|take better care of] the {T}.",
    "\"<welcome>, {P},\" said {Q}, and they both looked at the {T} <hands>.",
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
    "<soon>, {P} baked {n} more {item_s}[| <hands>| in the hot oven| with honey on top].",
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
    "{P} was hungry, so {he} ate {n} of the {items} <hands>.",
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
pub(super) const LEFT: &[&str] = &["Now {P} had {nI} left.", "{P} still had {nI}, and that was enough.", "So {P} had {nI} left[| for later| to take home]."];

pub(super) const ADMIRE: &[&str] = &[
    "\"What a nice {T},\" said {P}, looking at {Q} <said>.",
    "{P} liked {Q}'s {T} and wished {he} had one, too.",
    "\"I wish I had a {T} like yours, {Q},\" said {P} <voice>.",
    "{P} could not stop looking at the {T} that {Q} had.",
];
pub(super) const OFFER: &[&str] = &[
    "\"Shall we trade, {Q}, my {T} for your {U}?\" asked {P} <voice>.",
    "\"I will give you my {T} if you give me your {U},\" {P} said to {Q}.",
    "{P} asked {Q} to swap the {U} for the {T}.",
];
pub(super) const SWAP: &[&str] = &[
    "So {P} gave the {T} to {Q}, and {Q} gave the {U} to {P} <smile>.",
    "{Q} [liked the idea|nodded|said yes], so {P} gave {qhim} the {T} and got the {U} for it.",
    "They both agreed, so {Q} took the {T} and gave {P} the {U} <hands>.",
];
pub(super) const SWAP_UNSEEN: &[&str] = &["{P} handed over the {T} to {Q}, and {Q} handed over the {U} to {P} <smile>."];
pub(super) const BOTH_HAPPY: &[&str] = &[
    "{P} and {Q} were both <happy> and played with the {T} and the {U} until [supper|dinner|bedtime|the sun went down].",
    "\"That was a good trade, {Q},\" said {P}, and they laughed <mood>.",
    "Now {P} and {Q} each had something new, and they felt <happy>.",
];

pub(super) const HIDE_IDEA: &[&str] = &[
    "\"Let us play a game, {Q}, and I will hide my {T},\" said {P} <said>.",
    "{P} told {Q} to close {qhis} eyes and not to peek at the {T}.",
    "{P} wanted to play, so {he} asked {Q} to look for the {T}.",
];
pub(super) const HIDE: &[&str] = &[
    "While {Q} counted to {n}, {P} hid the {T} {S}.",
    "{P} <move> around on tiptoe and <hands> hid the {T} {S}.",
    "{Q} closed {qhis} eyes, and {P} hid the {T} {S}.",
];
pub(super) const HIDE_UNSEEN: &[&str] = &["{Q} closed {qhis} eyes, and the {T} that {P} hid ended up {S}."];
pub(super) const SEEK_FOUND: &[&str] = &[
    "At last, {P} looked {S} and found the {T}.",
    "Then {P} saw something {S}, and it was the {T}, so {he} took it <hands>.",
    "\"I found the {T},\" cried {P}, and {he} picked it up {S}.",
];
pub(super) const GAME_WON: &[&str] = &[
    "\"You are a good finder, {P},\" said {Q} <said>.",
    "{Q} laughed and told {P} that it had been a [fine|clever|funny|good] game.",
    "{P} was <happy> and did a little dance for {Q}.",
];

pub(super) const ERRAND: &[&str] = &[
    "\"Please bring the {T} to {R}, {Q},\" said {P} <said>.",
    "{P} asked {Q} to find the {T} and take it to {R}.",
    "\"{R} needs the {T}, so can you carry it there, {Q}?\" asked {P}.",
];
pub(super) const ON_THE_WAY: &[&str] = &[
    "On the way to {Q}, {P} [saw a [snail|frog|butterfly|rainbow|funny cloud]|met a [friendly|sleepy|noisy] [dog|cat|goose]|jumped over a puddle|sang a song about <food>|stopped to smell the flowers], but {he} did not forget {his} job.",
    "{P} <move> all the way to {Q} and held the {T} <hands>.",
    "It was a long way to {Q}, but {P} [did not give up|walked <hands>|kept going|whistled a tune].",
];
pub(super) const GRATEFUL: &[&str] = &[
    "\"<thanks> for bringing the {T}, {P},\" said {Q} <said>.",
    "{Q} was <happy> to get the {T} and offered {P} <food>.",
    "\"You are a great helper, {P},\" said {Q}, who needed the {T} very much.",
];

pub(super) const BREAK: &[&str] = &[
    "Then {P} broke the {T} because {cause}.",
    "<soon>, {P} dropped the {T}, and it broke because {cause}.",
    "Crack went the {T}, and it was {P} who had broken it because {cause}.",
    "But {P} broke the {T} by accident because {cause}.",
];
pub(super) const SORRY: &[&str] = &[
    "\"I am so sorry about the {T}, {Q},\" said {P} <voice>.",
    "{P} told {Q} the truth about the {T} and said sorry <voice>.",
    "\"<cry>, look at the {T},\" {P} said to {Q}.",
];
pub(super) const MEND: &[&str] = &[
    "{P} fixed the {T} with {tool} <hands>.",
    "\"I can fix that,\" said {P}, and {he} mended the {T} with {tool}.",
    "{P} sat down, took {tool}, and <hands> mended the {T}.",
    "It took a [long|little|short] while, but {P} mended the {T} with {tool}.",
];
pub(super) const MENDED: &[&str] = &[
    "\"It is as good as new, {P},\" said {Q}, and {qhe} [hugged|thanked] {him} for fixing the {T}.",
    "{Q} was <happy> because the {T} was whole again.",
    "\"<thanks> for mending the {T}, {P},\" said {Q} <said>.",
];

pub(super) const GO: &[&str] = &[
    "First, {P} <move> to {L} [to <love>|with an empty bag|with a song|because it was open].",
];
pub(super) const GO_NEXT: &[&str] = &[
    "After that, {P} <move> to {L} [to look around|to rest a little|to meet a friend|with a song|<mood>].",
    "Then {N} <move> on to {L} [to look around|to see what was new|with quick steps|<mood>].",
    "When {he} was done there, {P} <move> to {L}[| <mood>| and waved at everyone].",
];
pub(super) const GO_LAST: &[&str] = &[
    "Last of all, {P} <move> to {L} [<mood>|with tired feet|with a full heart|humming].",
    "Before going home, {P} <move> to {L} [to say goodbye|<mood>|for a short rest].",
];
pub(super) const SIGHTS: &[&str] = &[
    "There {he} [saw|met] [an old man who was feeding birds|a girl with a long braid|a dog with one white ear|a man who sold hot nuts|a woman who was painting a boat|a clown with big shoes|a boy on a tall bike|two cats asleep in the sun], and {P} [waved|smiled|said hello|watched for a while].",
    "{P} [drank|bought] [some cold water|a cup of juice|a glass of lemonade] and watched how <nature>.",
    "{P} played <game> with [the other children|a new friend|some ducks|a small dog] and got [very|a bit|quite] tired.",
    "There was so much to see that {P} [forgot the time|sat down on the ground|ran from one end to the other], for <nature>.",
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
    "\"I need some {items} for [a party|a pie|a picnic|my collection|a surprise],\" said {P} <said>.",
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
    "The {T} was all alone and [shivered a little|made a sad little sound|looked for its home|seemed very hungry], so {P} [stroked it <hands>|talked to it <hands>|gave it [some milk|a crumb of bread|a bit of apple|a drink of water]].",
    "\"You must be lost, little one,\" {P} said <hands> to the {T}.",
    "The {T} looked up at {P} and [blinked|yawned|sneezed|shook its ears], so {he} held it <hands>.",
];
pub(super) const PET_ASK: &[&str] = &[
    "\"Is this {T} yours, {Q}?\" asked {P}, but {Q} shook {qhis} head.",
    "{P} asked {Q} about the {T}, but it was not {qhers}.",
    "\"I have never seen that {T} before, {P},\" said {Q} <voice>.",
];
pub(super) const PET_OWNER: &[&str] = &[
    "Then they heard {P} calling [sadly|loudly|with tears in {his} eyes] for {his} {T}.",
    "\"That is my {T},\" cried {P}, who had looked for it [all day|everywhere|since breakfast].",
    "At last, they met {P}, who had been searching for {his} {T} [all day|everywhere|since breakfast].",
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
    "They all lived [happily|merrily|in peace] <near>, and {P} still liked to <love>.",
    "After that day, {P} and {Q} were [the best of friends|closer than ever|always kind to each other], and they often played <game>.",
    "{P} told {his} [mother|father|grandma|family] everything over <food>, and they were [so|very] [happy|glad] for {him}.",
];

pub(super) const LEFT_THERE: &[&str] = &[
    "{P} was <happy> to hear it and left the {T} where it was.",
    "\"Then the {T} can stay there, {Q},\" said {P} <said>.",
];
pub(super) const GAVE_UP: &[&str] = &[
    "\"I give up, {Q}, where is the {T}?\" asked {P}, but {Q} only laughed <mood>.",
    "{P} never found the {T}, and {Q} [kept the secret|won the game|was <happy>].",
];
pub(super) const TIDY: &[&str] = &[
    "{P} took the {T} and put it {S} <tidy>.",
    "{P} <hands> picked up the {T} and put it {S} <tidy>.",
    "So {P} carried the {T} away and left it {S} <tidy>.",
    "\"That does not belong there,\" said {P}, and {he} put the {T} {S}.",
];
pub(super) const TIDY_UNSEEN: &[&str] = &["{P} picked up the {T}, and it ended up {S} <tidy>."];
pub(super) const PET_HOME: &[&str] = &[
    "{Q} hugged the {T} and thanked {P} [again and again|<mood>|with all {qhis} heart].",
    "\"I was so worried about my {T}, {P},\" said {Q} <said>.",
    "{Q} was <happy> to have the {T} back and would not let it go.",
];
pub(super) const LEND: &[&str] = &[
    "\"You may play with the {T}, {Q},\" said {P}, and {he} gave it to {qhim} <smile>.",
    "{Q} wanted to try the {T}, so {P} gave it to {qhim} <hands>.",
    "<soon>, {P} let {Q} have a turn and gave {qhim} the {T} <smile>.",
];
pub(super) const DELIVER: &[&str] = &[
    "\"Here is the {T} that you need,\" said {P}, and {he} gave it to {Q} <smile>.",
    "When {P} arrived, {he} gave the {T} to {Q} <smile>.",
    "{P} found {Q} at last and gave {qhim} the {T} <hands>.",
];
pub(super) const GIVE_REWARD: &[&str] = &[
    "To say thank you, {P} gave {Q} the {T} <smile>.",
    "\"You were so kind to me that I want you to have my {T},\" said {P}, and {he} gave it to {Q} <hands>.",
    "{P} gave {Q} the {T} as a thank-you present <smile>.",
    "\"Now I have something for you, {Q},\" said {P}, and {he} gave {qhim} the {T} <smile>.",
];
pub(super) const GIVE_TO_MEND: &[&str] = &[
    "\"Can you mend the {T}, {Q}?\" asked {P}, and {he} gave it to {qhim} <voice>.",
    "{P} gave the broken {T} to {Q} and asked for help <voice>.",
];
pub(super) const GIVE_PET: &[&str] = &[
    "<soon>, {P} gave the {T} to {Q} <smile>.",
    "{P} put the {T} into {Q}'s arms <hands>, for it belonged to {qhim}.",
    "So {P} <hands> gave the {T} back to {Q}.",
];

/// The line with its leading letter as a capital.
pub(super) fn sentence_case(line: &str) -> String {
    let mut letters = line.chars();
    letters.next().map(|letter| letter.to_ascii_uppercase()).into_iter().chain(letters).collect()
}
