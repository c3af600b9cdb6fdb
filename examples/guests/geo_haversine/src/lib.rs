//! Great-circle distance.

const EARTH_RADIUS_KM: f64 = 6371.0088;

/// `haversine(lat1: f64, lon1: f64, lat2: f64, lon2: f64) -> f64`: the distance in kilometres
/// between two points given in degrees.
#[unsafe(no_mangle)]
pub extern "C" fn haversine(lat1: f64, lon1: f64, lat2: f64, lon2: f64) -> f64 {
    let (phi1, phi2) = (lat1.to_radians(), lat2.to_radians());
    let half_dphi = (phi2 - phi1) / 2.0;
    let half_dlambda = (lon2 - lon1).to_radians() / 2.0;
    let h = half_dphi.sin().powi(2) + phi1.cos() * phi2.cos() * half_dlambda.sin().powi(2);
    2.0 * EARTH_RADIUS_KM * h.sqrt().clamp(0.0, 1.0).asin()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_distances() {
        let jfk_lax = haversine(40.63975111, -73.77892556, 33.94253611, -118.4080744);
        assert!((jfk_lax - 3974.0).abs() < 1.0, "{jfk_lax}");
        let antipodes = haversine(0.0, 0.0, 0.0, 180.0);
        assert!((antipodes - std::f64::consts::PI * EARTH_RADIUS_KM).abs() < 1e-9);
        assert_eq!(haversine(51.5, -0.1, 51.5, -0.1), 0.0);
    }

    #[test]
    fn nan_stays_nan() {
        assert!(haversine(f64::NAN, 0.0, 0.0, 0.0).is_nan());
    }
}
