"""The words of the synthetic triage notes: invented complaints, no real person behind any.

Every complaint is a noun phrase in two voices, (as a clinician writes it, as a patient says it).
"""

from collections.abc import Mapping

Voices = tuple[str, str]

COMPLAINTS: Mapping[str, tuple[Voices, ...]] = {
    "cardiology": (
        ("chest tightness on climbing stairs", "a tight chest whenever i take the stairs"),
        ("palpitations lasting minutes", "a heart that races for minutes on end"),
        ("irregular pulse", "a heartbeat that skips and stumbles"),
        ("chest pressure spreading to the left arm", "a weight on my chest down to the left arm"),
        ("ankle swelling by evening", "ankles so puffy my socks leave marks"),
        ("breathlessness when lying flat", "too little air at night without three pillows"),
        ("collapse during exercise", "blackouts when i run for the bus"),
        ("raised blood pressure readings at home", "sky high numbers on the pressure cuff"),
        ("jaw and chest ache with cold sweat", "an ache from chest to jaw and cold sweat"),
        ("slow heart rate with fatigue", "a pulse so slow and zero energy"),
        ("new murmur found at a check-up", "a whooshing the nurse heard in my heart"),
        ("fluttering in the chest after coffee", "a flutter in the chest like a trapped bird"),
    ),
    "dermatology": (
        ("itchy rash in the elbow creases", "an awful itch in the bends of my elbows"),
        ("scaly plaques on both knees", "silvery flakes all over my knees"),
        ("a mole that changes colour", "a mole that went darker at the edge"),
        ("painful boil in the armpit", "a big sore boil under the arm"),
        ("hives after a new soap", "red welts everywhere from the new soap"),
        ("cracked skin between the toes", "itchy split skin between my toes"),
        ("blistering sunburn on the shoulders", "blisters on the shoulders from the sun"),
        ("patchy hair loss", "bald patches the size of a coin"),
        ("persistent acne with scars", "deep spots on my face that leave scars"),
        ("a wart on the sole", "a hard wart under the foot"),
        ("a sore on the nose that will not heal", "a scab on my nose that keeps coming back"),
        ("thickened yellow toenails", "toenails gone yellow and crumbly"),
    ),
    "ear-nose-throat": (
        ("sudden hearing loss in one ear", "one ear that went deaf overnight"),
        ("ringing in both ears", "a whistle in my ears that never stops"),
        ("recurrent nosebleeds", "nosebleeds that take an hour to stop"),
        ("sore throat with white spots", "a raw throat with white bits at the back"),
        ("blocked nose with loss of smell", "a stuffed nose and no smell of anything"),
        ("discharge from the ear", "wet stuff running out of my ear"),
        ("hoarse voice without a cold", "a croaky voice though i have no cold"),
        ("spinning when turning over in bed", "a spinning room when i roll over in bed"),
        ("pressure over both cheeks", "a heavy pressure behind my cheeks"),
        ("lump feeling in the throat", "a lump in the throat when i swallow spit"),
        ("loud snoring with pauses", "snoring so loud the house wakes up"),
        ("earache after swimming", "a stabbing ear since the swimming pool"),
    ),
    "gastroenterology": (
        ("heartburn after every meal", "burning up to the throat when i eat"),
        ("loose stools six times a day", "runny tummy and the loo all day"),
        ("upper abdominal cramps after fatty food", "cramps under the ribs from anything fried"),
        ("black tarry stools", "poo as black as tar"),
        ("constipation with bloating", "a blown up belly and no toilet for days"),
        ("vomiting without fever", "an upset stomach that keeps nothing down"),
        ("yellowing of the eyes", "eyes that turned yellow"),
        ("food sticking behind the breastbone", "bread that gets stuck on its way down"),
        ("weight loss with poor appetite", "a lost appetite and trousers that slip down"),
        ("bright blood on the toilet paper", "red blood when i wipe"),
        ("nausea after milk and cheese", "a sick stomach from milk or cheese"),
        ("right-sided abdominal tenderness", "a sore belly low on the right"),
    ),
    "neurology": (
        ("one-sided headache with flashing lights", "half a headache with zigzag lights"),
        ("tremor of the right hand at rest", "a hand that shakes while it does nothing"),
        ("numbness of the left face and arm", "a left arm and cheek gone numb"),
        ("slurred speech", "words that come out all mushy"),
        ("double vision when tired", "double sight by evening"),
        ("a seizure with tongue biting", "a fit where i bit my tongue"),
        ("increasing forgetfulness", "a memory like a sieve lately"),
        ("unsteady gait with frequent stumbling", "legs that wobble as if on a boat"),
        ("shock-like pain in one cheek", "electric zaps through one cheek"),
        ("burning feet at night", "feet on fire as soon as i am in bed"),
        ("drooping of one eyelid", "an eyelid that hangs down"),
        ("restless legs in the evening", "legs that must kick every evening"),
    ),
    "orthopaedics": (
        ("knee pain after twisting it at football", "a knee that twisted at football"),
        ("swollen ankle after a misstep", "a fat ankle after missing a kerb"),
        ("hip pain on the first steps", "a hip that hurts on the first steps"),
        ("stiff shoulder that cannot be raised", "a shoulder that will not go up anymore"),
        ("wrist pain after a fall", "a wrist that hurts since i fell on it"),
        ("a locking knee", "a knee that gets stuck halfway"),
        ("heel pain in the morning", "a heel like glass every morning"),
        ("back strain after lifting", "a back that went when i lifted boxes"),
        ("a trigger finger", "a finger that snaps when i bend it"),
        ("outer elbow pain when gripping", "an elbow that hurts when i wring a cloth"),
        ("bruised ribs after a bicycle crash", "sore ribs since i came off the bike"),
        ("a stiff neck after a car accident", "a neck i cannot turn after the car bump"),
    ),
    "pulmonology": (
        ("productive cough with green phlegm", "a cough with green muck"),
        ("wheezing at night", "a whistling chest at night"),
        ("coughing up blood-streaked sputum", "red streaks when i cough"),
        ("sharp pain on deep breaths", "a stab in the side on each deep breath"),
        ("asthma not held by the inhaler", "an inhaler that does nothing anymore"),
        ("dry cough since a viral infection", "a dry cough left over from a bug"),
        ("breathlessness in cold air", "a puff that runs out when the air is cold"),
        ("fever with rapid breathing", "a fever and fast little breaths"),
        ("daytime sleepiness with a sleep mask", "a sleep mask yet i nod off all day"),
        ("night sweats with a long cough", "soaked sheets and months of coughing"),
        ("low oxygen readings", "a finger clip that shows low oxygen"),
        ("breathlessness after years in a quarry", "lungs worn out by years in the quarry"),
    ),
    "urology": (
        ("burning on passing urine", "a burn each time i pee"),
        ("blood in the urine", "pee that came out red"),
        ("a weak urinary stream", "a pee that only dribbles"),
        ("colicky flank pain", "waves of pain in my side down to the groin"),
        ("urine leakage on sneezing", "little leaks when i sneeze"),
        ("five trips at night to pass urine", "five trips to the loo each night"),
        ("a raised kidney value", "a kidney test that came back bad"),
        ("incomplete emptying of the bladder", "a bladder that never feels empty"),
        ("recurrent bladder infections", "one bladder infection after another"),
        ("passing of small stones", "little stones that came out with my pee"),
        ("cloudy urine with fever", "cloudy smelly pee and a fever"),
        ("sudden urges to pass urine", "a need to pee right now or else"),
    ),
}
"""Department -> complaints that belong to it."""

SHARED: tuple[tuple[Voices, Mapping[str, Voices]], ...] = (
    (
        ("chest pain", "a pain in my chest"),
        {
            "cardiology": ("on exertion, gone at rest", "walking uphill, gone when i stop"),
            "gastroenterology": ("after meals and on lying down", "after dinner and in bed"),
            "orthopaedics": ("on pressing the ribs", "only if i press on a rib"),
            "pulmonology": ("with every breath and phlegm", "with each breath and some slime"),
        },
    ),
    (
        ("shortness of breath", "trouble breathing"),
        {
            "cardiology": ("with swollen legs", "and thick legs"),
            "ear-nose-throat": ("through a blocked nose", "through the nose, mouth is fine"),
            "pulmonology": ("with wheeze", "and a whistle inside"),
        },
    ),
    (
        ("dizziness", "dizzy turns"),
        {
            "cardiology": ("with missed heartbeats", "and a heart that skips"),
            "ear-nose-throat": ("with a ringing ear", "and one ear that rings"),
            "neurology": ("with double vision", "and double sight"),
        },
    ),
    (
        ("headache", "a pounding head"),
        {
            "cardiology": ("with very high blood pressure", "and pressure way over 180"),
            "ear-nose-throat": ("with blocked sinuses", "and a stuffed nose"),
            "neurology": ("with flickering sight", "and flickers in my eyes"),
            "orthopaedics": ("from a stiff neck", "that climbs up from a stiff neck"),
        },
    ),
    (
        ("tingling fingers", "pins and needles in my fingers"),
        {
            "neurology": ("with trouble finding words", "and the words will not come"),
            "orthopaedics": ("after plaster on the wrist", "since the cast on my wrist"),
        },
    ),
    (
        ("low back pain", "a sore lower back"),
        {
            "neurology": ("with a numb foot", "and a foot i cannot feel"),
            "orthopaedics": ("after moving furniture", "after carrying a sofa"),
            "urology": ("with painful urination", "and it stings to pee"),
        },
    ),
    (
        ("lower abdominal pain", "a pain low in the belly"),
        {
            "gastroenterology": ("with diarrhoea", "and the runs"),
            "urology": ("with a full bladder", "and a bladder about to burst"),
        },
    ),
    (
        ("persistent cough", "a cough that stays"),
        {
            "cardiology": ("with fluid and swollen feet", "and big wet feet by night"),
            "ear-nose-throat": ("from drip behind the nose", "from slime behind the nose"),
            "gastroenterology": ("with acid taste at night", "and acid in the mouth at night"),
            "pulmonology": ("with rattling lungs", "and lungs that rattle"),
        },
    ),
    (
        ("difficulty swallowing", "trouble swallowing"),
        {
            "ear-nose-throat": ("with swollen tonsils", "and fat tonsils"),
            "gastroenterology": ("with regurgitated food", "and food that comes back up"),
            "neurology": ("with a weak face", "and half my face is weak"),
        },
    ),
    (
        ("a red swollen leg", "a red fat leg"),
        {
            "cardiology": ("with fluid up to the thighs", "and water up to the thigh"),
            "dermatology": ("with a hot spreading rash", "and a rash that spreads"),
            "orthopaedics": ("after a fall from a ladder", "since i fell off a ladder"),
        },
    ),
    (
        ("facial pain", "a sore face"),
        {
            "dermatology": ("with small blisters", "and little blisters"),
            "ear-nose-throat": ("on bending down, with a cold", "if i bend down with this cold"),
            "neurology": ("in lightning attacks", "like lightning for a second"),
        },
    ),
    (
        ("severe itching", "itching like mad"),
        {
            "dermatology": ("with dry patches", "and dry patches"),
            "ear-nose-throat": ("inside the ear canal", "deep in the ear"),
            "gastroenterology": ("with yellow skin", "and i look yellow"),
        },
    ),
    (
        ("constant fatigue", "weeks of feeling worn out"),
        {
            "cardiology": ("with a slow pulse", "and a slow pulse"),
            "gastroenterology": ("with dark stools", "and dark poo"),
            "pulmonology": ("with pauses in breathing asleep", "and i stop breathing asleep"),
        },
    ),
    (
        ("fainting", "fainting spells"),
        {
            "cardiology": ("after a racing pulse", "once the heart starts racing"),
            "neurology": ("with jerking limbs", "with arms and legs jerking"),
        },
    ),
    (
        ("a painful swollen finger", "a fat sore finger"),
        {
            "dermatology": ("with pus at the nail", "with yellow stuff at the nail"),
            "orthopaedics": ("after a ball hit it", "since a ball hit it"),
        },
    ),
    (
        ("a new lump", "a lump that is new"),
        {
            "dermatology": ("in the skin, dark and bleeding", "on the skin, dark and bleeding"),
            "ear-nose-throat": ("in the neck", "at the side of my neck"),
            "orthopaedics": ("over the wrist joint", "on top of the wrist"),
            "urology": ("over the kidney", "over one kidney"),
        },
    ),
    (
        ("bleeding", "bleeding"),
        {
            "ear-nose-throat": ("from the nose", "out of the nose"),
            "gastroenterology": ("with the stool", "when i poo"),
            "pulmonology": ("on coughing", "when i cough"),
            "urology": ("with the urine", "when i pee"),
        },
    ),
    (
        ("weakness of one leg", "one weak leg"),
        {
            "neurology": ("with a drooping mouth", "and my mouth droops"),
            "orthopaedics": ("since a fall on the hip", "since i fell on the hip"),
        },
    ),
    (
        ("loss of bladder control", "leaks before i notice"),
        {
            "neurology": ("with numb legs", "and legs i cannot feel"),
            "urology": ("on coughing and laughing", "when i laugh or cough"),
        },
    ),
)
"""Symptoms that several departments see, and the detail that tells them apart."""
