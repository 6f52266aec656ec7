//! The words of the little world: names, things, places with their spots, things to count, and word classes for templates.
//! Lists are written as one string with `|` between the words and split once.

use super::grammar::choices;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Words of a `|` list, in order.
fn split(list: &'static str) -> Vec<&'static str> {
    choices(list).collect()
}

/// Girls' names (also of female animals). None ends in "s", so that a possessive is always "'s".
pub(super) static GIRLS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    split(
        "Lily|Mia|Anna|Sara|Emma|Ella|Zoe|Nora|Ruby|Clara|Molly|Ivy|Rosie|Lucy|Amy|Kate|Jane|Mary|Ellie|Hazel|Penny|Maya|\
         Tina|Nina|Lola|Bella|Stella|Maggie|Sophie|Julia|Rita|Wendy|Gina|Fay|Holly|Eva|Dora|Cora|Ida|Mina|Abby|Betty|\
         Carrie|Fiona|Greta|Hannah|Jenny|Katie|Lena|Polly|Sally|Tilly|Vera|Willa",
    )
});

/// Boys' names (also of male animals).
pub(super) static BOYS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    split(
        "Tom|Ben|Max|Sam|Tim|Jack|Leo|Finn|Owen|Henry|Oscar|Peter|Paul|Billy|Danny|Eddie|Felix|George|Harry|Jake|Kevin|\
         Luke|Nick|Oliver|Robin|Simon|Theo|Toby|Victor|Walter|Zack|Adam|Alex|Andy|Bob|Charlie|David|Ethan|Frank|Hugo|Ian|\
         Joe|Kyle|Liam|Milo|Noah|Otto|Pip|Ralph|Rory|Ted|Arthur|Martin|Willy",
    )
});

/// Kinds of animals that talk and have names.
pub(super) static ANIMALS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    split(
        "rabbit|bear|fox|mouse|squirrel|hedgehog|duck|otter|badger|frog|raccoon|beaver|mole|lamb|penguin|kitten|puppy|owl|\
         turtle|monkey|pony|goat|chipmunk|koala",
    )
});

/// Pets that get lost and are carried home.
pub(super) static PETS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    split("kitten|puppy|turtle|hamster|parrot|bunny|lamb|duckling|chick|guinea pig|piglet|baby goat")
});

/// Animals that look on from a spot; none is a pet or has a name.
pub(super) static ONLOOKERS: LazyLock<Vec<&str>> =
    LazyLock::new(|| split("cat|dog|hen|pigeon|snail|spider|ladybug|beetle|moth|lizard|crow|cricket"));

/// What a pet looks like.
pub(super) static PET_LOOKS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    split("little|tiny|brown|white|black|gray|spotted|fluffy|sleepy|hungry|muddy|shy|young|golden|chubby")
});

/// Things small enough to be carried, given and put anywhere.
pub(super) static THINGS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    split(
        "ball|kite|doll|teddy bear|book|hat|scarf|cup|bell|drum|flute|whistle|toy car|toy boat|toy train|toy plane|puzzle|\
         spinning top|puppet|mask|lantern|flashlight|key|ring|necklace|bracelet|ribbon|crown|cape|wand|map|letter|notebook|\
         paintbrush|pencil case|jar|bottle|spoon|bowl|plate|mug|lunch box|backpack|mitten|glove|sock|boot|slipper|sweater|\
         coat|apron|magnet|compass|telescope|camera|music box|toy robot|toy horse|toy dinosaur|toy truck|stuffed rabbit|\
         rag doll|pinwheel|jump rope|frisbee|shovel|hammer|snow globe|picture|postcard|paper boat|tambourine|harmonica|\
         trumpet|violin|storybook|sketchbook|vase|candle|purse|wallet|comb|hairbrush|tin soldier|model ship|toy wagon|\
         bow tie|belt|rope|pillowcase|ukulele|calendar|envelope",
    )
});

/// Things that can break and be mended.
pub(super) static FRAGILE: LazyLock<Vec<&str>> = LazyLock::new(|| {
    split(
        "kite|doll|toy car|toy boat|toy train|toy plane|puppet|mask|lantern|necklace|crown|pinwheel|picture|music box|\
         toy robot|toy horse|toy truck|drum|violin|vase|model ship|toy wagon|telescope|umbrella|birdhouse|basket|ukulele|\
         lamp|bowl|mug|snow globe|flute",
    )
});

/// What a thing looks like. None begins a claim that a reason could contradict.
pub(super) static LOOKS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    split(
        "red|blue|green|yellow|orange|purple|pink|brown|black|white|golden|silver|gray|little|big|shiny|old|new|tiny|\
         pretty|striped|spotted|funny|painted|lovely|bright|plain|fancy",
    )
});

/// A thing that is counted: singular, plural, and how one comes by more of it.
#[derive(Clone, Copy)]
pub(super) struct Item {
    pub(super) one: &'static str,
    pub(super) many: &'static str,
    pub(super) source: Source,
}

/// How one comes by a counted thing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Picked from a plant and eaten.
    Picked,
    /// Baked and eaten.
    Baked,
    /// Found and kept.
    Found,
}

/// The counted things.
pub(super) static ITEMS: LazyLock<Vec<Item>> = LazyLock::new(|| {
    let lists = [
        (
            Source::Picked,
            "apple apples|pear pears|plum plums|cherry cherries|peach peaches|berry berries|walnut walnuts|carrot carrots|\
             strawberry strawberries|tomato tomatoes|grape grapes|radish radishes|lemon lemons|fig figs|chestnut chestnuts",
        ),
        (
            Source::Baked,
            "cookie cookies|muffin muffins|bun buns|pancake pancakes|tart tarts|waffle waffles|cupcake cupcakes|pie pies|\
             roll rolls|pretzel pretzels|biscuit biscuits",
        ),
        (
            Source::Found,
            "shell shells|pebble pebbles|feather feathers|button buttons|marble marbles|bead beads|sticker stickers|\
             pinecone pinecones|stamp stamps|coin coins|crayon crayons|acorn acorns|leaf leaves|stone stones",
        ),
    ];
    let mut items = Vec::new();
    for (source, list) in lists {
        for pair in list.split('|') {
            let (one, many) = pair.split_once(' ').unwrap_or((pair, pair));
            items.push(Item { one, many, source });
        }
    }
    items
});

/// A place of the world and the spots in it where a thing can lie.
pub(super) struct Place {
    /// With its article: "the garden".
    pub(super) name: &'static str,
    /// Where somebody in it is: "in the garden".
    pub(super) inside: &'static str,
    /// Whether there is a roof.
    pub(super) indoors: bool,
    /// Whether one can go there on a walk.
    pub(super) public: bool,
    /// Where a thing can lie: "under the apple tree".
    pub(super) spots: Vec<&'static str>,
}

fn place(inside: &'static str, indoors: bool, spots: &'static str) -> Place {
    let name = inside.split_once(' ').map_or(inside, |(_, name)| name);
    let public = !indoors || inside.starts_with("at ");
    Place { name, inside, indoors, public, spots: split(spots) }
}

/// The places. A spot belongs to a single place.
pub(super) static PLACES: LazyLock<Vec<Place>> = LazyLock::new(|| {
    vec![
        place(
            "in the kitchen",
            true,
            "on the kitchen table|in the cupboard|under the sink|beside the stove|behind the bread box|on the counter|\
             in the bottom drawer|next to the teapot",
        ),
        place(
            "in the bedroom",
            true,
            "under the bed|on the pillow|in the toy box|behind the curtain|on the bookshelf|in the closet|beside the lamp|\
             inside the dresser",
        ),
        place(
            "in the living room",
            true,
            "on the sofa|under the rug|behind the clock|on the windowsill|beside the fireplace|under the armchair|\
             next to the piano|in the sewing basket",
        ),
        place(
            "in the attic",
            true,
            "in the old trunk|on the dusty shelf|behind the mirror|under the wool blanket|beside the rocking chair|\
             in the hat box|inside the suitcase|on top of the wardrobe",
        ),
        place(
            "in the garden",
            false,
            "under the apple tree|beside the rose bush|in the wheelbarrow|on the stone wall|behind the shed|\
             in the big flower pot|next to the gate|on the garden bench",
        ),
        place(
            "in the park",
            false,
            "on the park bench|under the slide|beside the fountain|behind the big oak|near the swings|next to the duck pond|\
             in the sandbox|under the little bridge",
        ),
        place(
            "at the beach",
            false,
            "behind the sand castle|under the beach umbrella|in the rowboat|on the flat rock|beside the tide pool|\
             next to the lighthouse|inside the tin bucket|on the beach towel",
        ),
        place(
            "on the farm",
            false,
            "in the barn|on the hay bale|under the tractor|beside the chicken coop|behind the stable|in the milk cart|\
             next to the well|on the fence post",
        ),
        place(
            "in the forest",
            false,
            "in the hollow log|under the pine tree|on the tree stump|behind the mossy rock|beside the stream|\
             among the ferns|near the cave|inside the tree house",
        ),
        place(
            "at the school",
            true,
            "on the teacher's desk|in the coat room|under the round table|behind the blackboard|on the reading mat|\
             in the art box|beside the globe|next to the fish tank",
        ),
        place(
            "at the library",
            true,
            "on the front desk|between two tall shelves|under the reading table|in the book cart|behind the puppet stage|\
             beside the glass door|on the story rug|in the return box",
        ),
        place(
            "at the market",
            false,
            "on the fruit stand|under the cake stall|in the honey cart|behind the flower stall|beside the bell tower|\
             next to the bakery|in the straw basket|on the market steps",
        ),
        place(
            "in the backyard",
            false,
            "on the porch|in the dog house|under the trampoline|behind the hedge|beside the garden hose|on the swing|\
             in the old tire|next to the fence",
        ),
        place(
            "in the workshop",
            true,
            "on the workbench|in the toolbox|under the ladder|behind the paint cans|beside the big saw|in the wooden crate|\
             next to the glue pots|on the low stool",
        ),
        place(
            "in the meadow",
            false,
            "in the tall grass|under the willow|on the little hill|beside the beehive|behind the haystack|\
             among the daisies|near the windmill|next to the scarecrow",
        ),
        place(
            "at the harbor",
            false,
            "on the dock|in the fishing boat|under the fishing net|behind the barrels|beside the anchor|\
             inside the lobster trap|next to the buoy|on the captain's chair",
        ),
        place(
            "in the greenhouse",
            true,
            "on the potting bench|under the tomato vines|in the tin tub|behind the cactus|beside the lemon tree|\
             in the seed drawer|next to the sunflowers|on the glass shelf",
        ),
        place(
            "at the museum",
            true,
            "under the dinosaur bones|beside the stone lion|behind the ticket desk|on the marble steps|next to the old ship|\
             in the lost and found box|near the knight's armor|on the velvet bench",
        ),
    ]
});

/// Number words from zero to twenty.
pub(super) const NUMBERS: [&str; 21] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
];

/// Words of a class named in a template as `<class>`; each word may itself hold template marks.
pub(super) fn class(name: &str) -> &'static [&'static str] {
    CLASSES.get(name).map_or(&[], Vec::as_slice)
}

static CLASSES: LazyLock<BTreeMap<&'static str, Vec<&'static str>>> =
    LazyLock::new(|| CLASS_LISTS.iter().map(|(name, list)| (*name, split(list))).collect());

/// Reasons and purposes speak of `{he}`, the person `{P}` of the sentence.
const CLASS_LISTS: &[(&str, &str)] = &[
    (
        "trait",
        "kind|brave|shy|curious|clever|cheerful|quiet|gentle|silly|lively|careful|playful|thoughtful|friendly|patient|busy|\
         sleepy|honest|helpful|polite|merry|bold|dreamy|neat|hungry|lucky|jolly|sweet|noisy|smart",
    ),
    (
        "love",
        "sing|dance|draw|paint|climb|jump in puddles|look for bugs|read stories|tell jokes|play hide and seek|build towers|\
         collect stamps|watch the clouds|count the stars|feed the birds|help in the garden|bake bread|make up songs|\
         play outside|ask questions|run races|splash in the water|explore|make new friends|ride a bike|roll down hills|\
         listen to the rain|tell stories|swing very high|dig holes",
    ),
    ("hands", "carefully|gently|quickly|slowly|quietly|happily|gladly|proudly|eagerly"),
    ("voice", "softly|kindly|politely|quietly|shyly|gently|warmly|in a [soft|kind|warm|quiet|small] voice"),
    ("eyes", "carefully|closely|quietly|for a while|again and again"),
    ("mood", "happily|gladly|cheerfully|merrily|with a song|side by side|for a long time"),
    ("said", "<smile>|<voice>|in a [soft|kind|cheerful|warm|quiet|gentle] voice"),
    (
        "soon",
        "Then|After that|Soon|A little later|Next|A few minutes later|After a while|Before long|Later that {tod}|A bit later",
    ),
    ("happy", "happy|glad|thrilled|delighted|excited|pleased|cheerful|overjoyed"),
    (
        "smile",
        "with a [big|shy|warm|wide|happy|little|bright|kind] smile|with a [small|deep|quick|polite|funny|grand] bow|\
         with a [soft|happy|little|merry] laugh|with shining eyes|\
         and clapped|and nodded|and winked|with a [gentle|friendly|slow|quick] nod|and blushed a little|with a [soft|happy] giggle",
    ),
    (
        "keep",
        "because {he} wanted to keep it safe|so that nobody would step on it|to keep it [dry|clean|safe]|\
         because {his} arms were [tired|full]|because it was time for [lunch|a nap|a snack|a bath|supper]|\
         before {he} [ran|skipped|wandered|hurried|went] off to [play|rest|help|eat|wash up]|\
         because {he} did not want to lose it|and [covered it with a leaf|gave it a little pat|walked away humming]|\
         so that it would be easy to find|because it was too [heavy|precious] to carry [around|all day]|\
         because {he} needed both hands to [climb|dig|draw|eat]|and went to [wash {his} hands|get a drink of water|see the birds]|\
         and forgot all about it|while {he} tied {his} [shoe|hood]|because {he} thought it looked nice there|\
         because the wind might blow it away|and told [nobody|no one] about it|and counted to ten",
    ),
    (
        "tidy",
        "because {he} liked things to be [neat|tidy|in order]|because {he} thought [somebody|someone] might step on it|\
         because it was in the way|so that it would not get [lost|dirty|wet|broken]|because {he} wanted to help|\
         because {he} thought it belonged there|because the [cat|dog|baby] was trying to chew it|as a [joke|little trick]|\
         because {he} needed the space [for a game|to draw|for {his} lunch]|because it looked lonely|\
         because a [puddle|drip|muddy spot] was very close to it|because {he} wanted to sweep the floor|\
         so that everyone could see it|because {he} was cleaning up|and then forgot to tell anyone|to keep it out of the sun",
    ),
    (
        "order",
        "because {he} liked things to be [neat|tidy|in order]|because {he} thought it belonged there|because it was in the way|\
         so that it would not get [lost|dirty|wet|broken]|so that everyone could see it|to keep it [dry|clean|safe]|\
         because {he} thought [someone|somebody] might step on it|where it looked [nice|good|just right]|\
         because that was its place|because {he} wanted to sweep the floor|so that it would be easy to find",
    ),
    ("coat", "fat|gray|small|sleepy|old|brown|quiet|black|white|young"),
    (
        "loved",
        "it made {him} laugh|it was so much fun|it had come all the way from the city|it reminded {him} of the sea|\
         it was the nicest thing {he} owned|nobody else had one like it|it was a birthday present|{his} grandma had made it|\
         it felt [smooth|special|just right] in {his} hands|it smelled like [honey|the forest|summer|fresh bread]|\
         it was older than {he} was|{he} had saved up for it|it always cheered {him} up|it had belonged to {his} grandpa|\
         it was perfect for {his} games|it made every day feel like a party|{he} had wanted one for a long, long time",
    ),
    ("badly", "sad|upset|unhappy|gloomy|glum|miserable"),
    (
        "trouble",
        "{he} had fallen off {his} [bike|scooter|swing]|nobody wanted to play with {him}|{his} [tower|paper house|block house] had fallen down|\
         {he} had missed the [bus|parade|puppet show|party]|{he} had a sore [knee|tooth|thumb|throat]|{his} best friend had moved away|\
         {he} had spilled {his} [milk|soup|juice|paint]|{he} had lost [a race|a game|{his} way|a tooth]|{he} had torn {his} [shirt|jacket|drawing]|\
         it was {his} birthday and everyone had forgotten|{he} had not slept all night|{his} [goldfish|plant|sunflower] was sick|\
         {he} missed {his} [mother|father|grandma|big sister]|{he} was afraid of the [dark|thunder|big dog]|\
         {he} had dropped {his} [ice cream|sandwich|cake]|a [bee|wasp|mosquito] had stung {him}|the other children had laughed at {him}|\
         {he} had nothing to do|{he} was new in town",
    ),
    (
        "accident",
        "{he} tripped over a [root|stone|rug|toy|cat]|{he} was running too fast|{he} was not looking|{he} held it too tightly|\
         {his} hands were [wet|cold|slippery]|a loud [noise|bang|bark] scared {him}|{he} sat on it by mistake|\
         {he} sneezed [very hard|three times]|{he} tried to carry too many things|{he} slipped on the [mud|ice|soap|wet grass]|\
         {he} threw it too high|{he} turned around too quickly|a [bee|fly|butterfly] landed on {his} nose|{he} was playing too wildly",
    ),
    (
        "tool",
        "some glue|some tape|some string|some wire|a needle and thread|a small nail|a drop of paste|a strong ribbon|a bit of clay|a rubber band|\
         a wooden peg|a new screw|a paper clip",
    ),
    (
        "dream",
        "[flying|floating|sailing] [over|past|around] [the clouds|the mountains|a sea of flowers|the moon|a friendly whale|\
         candy hills|a castle|the stars|a quiet lake|a land of giants|a rainbow|warm islands]|\
         [dancing|singing|laughing|playing] [bears|mice|owls|frogs|rabbits|dragons|penguins]|\
         a [giant|tiny|golden|sleepy|singing|magic] [cake|boat|train|garden|tree|star|pony]",
    ),
    (
        "nature",
        "birds [sang|chirped|hopped] in the [trees|bushes|branches]|bees [buzzed|hummed] [from flower to flower|in the warm air|around the roses]|\
         butterflies [danced|floated] [over the flowers|in the air|in the sunlight]|a soft breeze [moved|tickled] the [leaves|grass|flowers]|\
         the [grass|air|world|whole town] smelled [fresh|sweet|clean|of flowers]|the sky was [clear and blue|as blue as the sea]|\
         [squirrels|rabbits|lizards] [ran|played|rested] in the [grass|sunshine]|the [clouds|shadows] looked like [sheep|boats|castles|whales]",
    ),
    (
        "game",
        "a counting game|hide and seek|tag|a guessing game|pirates|catch|school|a jumping game|kings and queens|a singing game|\
         leapfrog|explorers|follow the leader|shop|a clapping game|detectives",
    ),
    (
        "food",
        "soup|bread and jam|pancakes|noodles|warm milk|rice|porridge|cheese sandwiches|apple pie|pea soup|corn|toast with honey|\
         pudding|baked beans|fish pie|a big salad|dumplings|pasta|stew|yogurt with berries",
    ),
    (
        "lesson",
        "sharing makes everything [better|sweeter|more fun]|it is good to ask for help|a kind word can change a whole day|\
         friends are the best treasure|telling the truth is always best|even small helpers can do big things|\
         being patient pays off|it feels good to be kind|a problem gets smaller when two people carry it|\
         listening is as important as talking|everyone makes mistakes|saying sorry can fix a lot|\
         it is wise to look twice|a little help goes a long way|giving can feel even better than getting|\
         good friends look after each other",
    ),
    (
        "where_live",
        "a small house|a cozy cottage|a tall house|a yellow house|a quiet street|a little village|a busy town|an old farmhouse|\
         a stone house|a tiny flat|a wooden cabin|a snug little home",
    ),
    (
        "near",
        "near the [sea|river|hills|forest|bridge|lake|mill]|by the [sea|river|lake|woods]|at the edge of [town|the woods|a wide field]|\
         on top of a [green|windy|round] hill|behind the [church|school|market|station]|not far from the [sea|farm|river]",
    ),
    ("hello", "Hello|Hi|Good {tod}|Hi there|Hello there|Hey"),
    (
        "thanks",
        "Thank you|Thank you so much|Oh, thank you|Thanks a lot|Many thanks|Thank you very much|Wow, thank you",
    ),
    (
        "kindly",
        "You are [so kind|very kind|a good friend|the best|a true friend|so sweet|my hero|so clever]|That is [so|very] [nice|kind|sweet] of you|\
         I will never forget this|You made [my day|me so happy]|I feel [much|so much|a lot] better now|What a [nice|lovely|wonderful] surprise",
    ),
    (
        "welcome",
        "You are welcome|It was nothing|I am [glad|happy] to help|That is what friends are for|Any time|I was happy to do it|Do not worry about it",
    ),
    ("cry", "Oh no|Oh dear|Oh my|Uh-oh|What a shame|Goodness"),
    ("move", "walked|ran|skipped|hopped|hurried|marched|strolled|wandered|tiptoed|raced"),
];
