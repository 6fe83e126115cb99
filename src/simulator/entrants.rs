//! Twenty drivers and ten teams who do not exist.

/// A driver in a car.
#[derive(Debug)]
pub struct Entrant {
    pub number: u8,
    pub acronym: &'static str,
    pub first: &'static str,
    pub last: &'static str,
    pub country: &'static str,
    pub team: usize,
    /// Slower than the best driver in the same car (s a lap).
    pub deficit_s: f64,
}

/// A team.
#[derive(Debug)]
pub struct Team {
    pub name: &'static str,
    pub colour: &'static str,
    /// Slower than the best car (s a lap).
    pub deficit_s: f64,
    /// How quick its crew is against the others (s a stop).
    pub stop_s: f64,
}

const fn team(name: &'static str, colour: &'static str, deficit_s: f64, stop_s: f64) -> Team {
    Team {
        name,
        colour,
        deficit_s,
        stop_s,
    }
}

/// Every team, the quickest first; two cars each.
pub static TEAMS: [Team; 10] = [
    team("Vantage Meridian", "1F3FBF", 0.0, 0.0),
    team("Corsa Aurelia", "D01C2A", 0.12, 0.1),
    team("Tangerine Works", "F58020", 0.18, -0.1),
    team("Silberpfad", "27D3C3", 0.30, 0.1),
    team("Emerald Racing", "0B6B50", 0.62, 0.2),
    team("Bleu Horizon", "2F9BE0", 0.85, 0.3),
    team("Falcon Grove", "6CA0FF", 0.98, 0.2),
    team("Iron Prairie", "A8ADB3", 1.05, 0.4),
    team("Lumen Verde", "4BD04E", 1.20, 0.5),
    team("Harbour Crest", "3C60D8", 1.32, 0.3),
];

const fn entrant(
    number: u8,
    acronym: &'static str,
    first: &'static str,
    last: &'static str,
    country: &'static str,
    team: usize,
    deficit_s: f64,
) -> Entrant {
    Entrant {
        number,
        acronym,
        first,
        last,
        country,
        team,
        deficit_s,
    }
}

/// Every driver, team by team.
pub static ENTRANTS: [Entrant; 20] = [
    entrant(7, "ARD", "Nils", "Ardent", "NHL", 0, 0.0),
    entrant(12, "OKO", "Chidi", "Okonjo", "KST", 0, 0.28),
    entrant(17, "BEL", "Matteo", "Bellandi", "FER", 1, 0.05),
    entrant(51, "SOR", "Iker", "Sorolla", "BRS", 1, 0.14),
    entrant(5, "WHI", "Callum", "Whitlock", "KST", 2, 0.04),
    entrant(82, "TAN", "Rei", "Tanabe", "NHL", 2, 0.12),
    entrant(46, "HOL", "Edmund", "Holloway", "KST", 3, 0.08),
    entrant(61, "LIN", "Per", "Lindqvist", "NHL", 3, 0.10),
    entrant(13, "MAR", "Joaquim", "Marinho", "BRS", 4, 0.03),
    entrant(19, "DUV", "Theo", "Duval", "FER", 4, 0.35),
    entrant(9, "LAC", "Bastien", "Lacombe", "FER", 5, 0.10),
    entrant(32, "ROS", "Emil", "Rosenquist", "NHL", 5, 0.16),
    entrant(25, "KAI", "Sora", "Kaida", "KST", 6, 0.12),
    entrant(34, "PRI", "Owen", "Prideaux", "KST", 6, 0.22),
    entrant(21, "STO", "Anders", "Stovall", "NHL", 7, 0.15),
    entrant(28, "GRU", "Falk", "Gruber", "FER", 7, 0.11),
    entrant(78, "VAL", "Aarne", "Valkama", "NHL", 8, 0.12),
    entrant(88, "XUE", "Ming", "Xueling", "BRS", 8, 0.30),
    entrant(24, "ASH", "Rowan", "Ashgrove", "KST", 9, 0.10),
    entrant(3, "PEL", "Dario", "Pellegrin", "BRS", 9, 0.45),
];

impl Entrant {
    pub fn team(&self) -> &'static Team {
        &TEAMS[self.team]
    }

    /// Slower than the best driver in the best car (s a lap).
    pub fn pace_s(&self) -> f64 {
        self.deficit_s + self.team().deficit_s
    }
}
