//! Profiles and recorded boots: one of the same shape tells nearly all; how far others carry over is printed.

use swarmdisk_tests::recall::Boots;

#[test]
fn a_profile_tells_what_another_boot_of_its_shape_reads() {
    let boots = Boots::read(&Boots::folder()).unwrap();
    let mut judged = 0;
    for tested in boots.shapes() {
        let tested_boots = boots.select(|boot| boot.shape == tested);
        for trained in boots.shapes() {
            let Some(fit) = boots.fit(&boots.select(|boot| boot.shape == trained), &tested_boots, 0) else { continue };
            let (recall, precision) = (fit.recall(), fit.precision());
            println!("{tested} with a profile of {trained}: recall {recall:.2} %, precision {precision:.2} %");
            if tested == trained {
                assert!(recall >= 99.0 && precision >= 97.0, "{tested}: {recall:.2} % and {precision:.2} %");
                judged += 1;
            }
        }
    }
    assert!(judged > 1, "only {judged} shapes were recorded twice");
}
