//! What `train` and `new` refuse.

use crate::refusals::refusals;

// Where pictures and labels come from.
refusals! {
    a_run_without_data_is_refused: "train" => "--data <DIR>";
    a_folder_that_is_not_there_is_refused: "train --data none" => "none is missing";
    a_folder_without_class_folders_is_refused: "train --data empty" => "empty has no class folders";
    a_folder_of_sets_of_other_names_is_refused: "train --data halves" => "are sets, not classes";
    a_name_of_no_class_for_columns_of_classes_is_refused:
        "train TABLE --no-class odd" => "has a column for each class";
    a_class_folder_without_pictures_is_refused: "train --data hollow" => "has no pictures (.jpg";
    sets_of_other_classes_are_refused: "train --data differ" => "the classes of training and validation differ";
    a_folder_and_a_table_together_are_refused: "train DATA --csv labels.csv" => "cannot be used with";
    pictures_that_a_table_lists_and_that_are_missing_are_refused:
        "train --csv missing.csv" =>
        "2 of the 2 pictures in missing.csv are missing in the current folder, such as `none.jpg` (line 2)";
    a_table_that_is_not_there_is_refused: "train --csv none.csv" => "cannot read none.csv";
    a_column_of_labels_that_is_not_there_is_refused:
        "train --csv labels.csv --labels lat" => "no column `lat` for labels; did you mean `late`?";
    a_column_of_paths_that_is_not_there_is_refused:
        "train --csv labels.csv --path-column file" => "no column `file`";
    a_column_of_groups_that_is_not_there_is_refused:
        "train TABLE --group patients" => "no column `patients` for groups; did you mean `patient`?";
    a_label_that_is_none_is_refused_by_its_line_and_column:
        "train --csv bad.csv --root data/train" => "bad.csv, line 3, column `odd`: `2` is neither";
    groups_of_a_folder_are_refused: "train DATA --group patient" => "--group is for tables";
    a_root_for_a_folder_is_refused: "train DATA --root x" => "--root is for tables";
    columns_of_labels_for_a_folder_are_refused: "train DATA --labels x" => "--labels is for tables";
    a_column_of_paths_for_a_folder_is_refused: "train DATA --path-column x" => "--path-column is for tables";
    a_name_of_no_class_for_a_folder_is_refused: "train DATA --no-class x" => "--no-class is for tables";
}

// What trains, and what validates.
refusals! {
    a_share_for_validation_that_is_neither_a_number_nor_a_file_is_refused:
        "train DATA --val half" => "--val half: it must be a share";
    a_share_for_validation_above_1_is_refused:
        "train --data data/train --val 1.5" => "it must be above 0 and below 1";
    a_share_for_validation_of_0_is_refused: "train TABLE --val 0" => "it must be above 0 and below 1";
    a_share_for_validation_of_a_folder_that_has_its_own_is_refused:
        "train DATA --val 0.5" => "data has validation pictures in data/val; leave --val and --split out";
    a_split_of_a_folder_that_has_its_own_is_refused:
        "train DATA --split split.csv" => "data has validation pictures in data/val";
    a_table_that_validates_a_folder_is_refused:
        "train --data data/train --val missing.csv" =>
        "--val missing.csv: a table for validation needs a table for training";
    a_split_that_is_not_there_is_refused: "train TABLE --split none.csv" => "cannot read none.csv";
    a_split_of_other_pictures_is_refused: "train TABLE --split missing.csv" => "but a split has `path` and `set`";
    a_split_with_a_group_in_both_sets_is_refused:
        "train TABLE --group patient --split split.csv" =>
        "20 groups are in both training and validation, such as `p0`";
    a_table_that_validates_pictures_which_train_is_refused:
        "train TABLE --val two.csv" => "2 pictures are in both training and validation";
    a_table_that_validates_other_classes_is_refused:
        "train --csv two.csv --root data/train --val other.csv" => "early";
}

// The network, and how pictures reach it.
refusals! {
    an_unknown_preset_is_refused: "train DATA --model resnet50" => "unknown preset \"resnet50\"";
    a_spec_that_lacks_a_key_is_refused: "train DATA --spec BLOCKS" => "needs `k` (growth rate)";
    a_preset_and_a_spec_together_are_refused:
        "train DATA --model densenet121 --spec SPEC" => "cannot be used with";
    a_spec_that_names_other_classes_than_the_pictures_is_refused:
        "train DATA --spec NAMED" => "the spec names the classes [\"cat\", \"dog\"], but those of the pictures are";
    a_size_that_is_none_is_refused:
        "train DATA --input 32x" => "write it as 224 (a square), 192x256 (height, width)";
    an_input_that_is_too_small_for_the_network_is_refused:
        "train DATA --input 7 --model densenet121" => "7x7 input is too small";
    a_network_for_pictures_of_two_channels_is_refused:
        "train DATA --input 2x32x32" => "pictures have 1 channel (grey) or 3 (RGB), but images of 2 were requested";
    a_crop_of_more_than_the_picture_is_refused:
        "train DATA --crop-pct 1.5" => "it must be a share above 0 and at most 1";
    a_crop_of_nothing_is_refused: "train DATA --crop-pct 0" => "it must be a share above 0 and at most 1";
    an_unknown_interpolation_is_refused: "train DATA --interpolation cubic" => "invalid value 'cubic'";
    a_range_whose_ends_are_swapped_is_refused:
        "train DATA --range 4095 0" => "samples cannot range from 4095 to 0";
    a_range_of_one_number_is_refused: "train DATA --range 4095" => "2 values required";
    a_range_that_is_no_number_is_refused: "train DATA --range 0 nan" => "samples cannot range from 0 to NaN";
}

// How pictures are varied and mixed.
refusals! {
    areas_of_crops_whose_ends_are_swapped_are_refused:
        "train DATA --crop-area 1 0.5" => "the smaller one first, found 1 and 0.5";
    an_area_of_crops_above_the_whole_is_refused:
        "train DATA --crop-area 0.5 1.5" => "the crop's area of the augmentation";
    aspects_of_crops_of_0_are_refused:
        "train DATA --crop-aspect 0 1" => "the crop's aspect ratio of the augmentation";
    a_share_of_mirrored_pictures_above_1_is_refused:
        "train DATA --mirror 1.5" => "the share of mirrored images of the augmentation must be from 0 to 1, found 1.5";
    a_share_of_flipped_pictures_that_is_no_number_is_refused:
        "train DATA --flip nan" => "the share of flipped images of the augmentation";
    a_rotation_of_more_than_half_a_turn_is_refused:
        "train DATA --rotate 200" => "the rotation of the augmentation must be from 0 to 180, found 200";
    a_translation_of_more_than_the_picture_is_refused:
        "train DATA --translate 2" => "the translation of the augmentation";
    a_zoom_to_nothing_is_refused: "train DATA --zoom 0 1" => "the scale of the augmentation";
    a_shear_of_a_right_angle_is_refused: "train DATA --shear 90" => "the shear of the augmentation";
    a_fill_that_is_brighter_than_white_is_refused: "train DATA --fill 2" => "the fill of the augmentation";
    a_variation_of_brightness_below_0_is_refused:
        "train DATA --brightness=-1" => "the jitter's brightness of the augmentation";
    a_variation_of_contrast_that_is_infinite_is_refused:
        "train DATA --contrast inf" => "the jitter's contrast of the augmentation";
    a_variation_of_saturation_below_0_is_refused:
        "train DATA --saturation=-0.1" => "the jitter's saturation of the augmentation";
    a_variation_of_hue_above_half_the_circle_is_refused: "train DATA --hue 0.6" => "the jitter's hue of the augmentation";
    a_share_of_erased_pictures_above_1_is_refused:
        "train DATA --erase 2" => "the share of images with an erased part";
    an_unknown_way_to_draw_pictures_is_refused: "train DATA --sampling some" => "invalid value 'some'";
    an_unknown_policy_is_refused:
        "train DATA --auto-augment rand=3" => "it must be none, trivial, rand, or rand=3,12";
    a_policy_of_more_strength_than_there_is_is_refused:
        "train DATA --auto-augment rand=3,31" => "magnitude";
    an_alpha_of_mixup_above_100_is_refused: "train DATA --mixup 101" => "it must be a number from 0 (none) to 100";
    an_alpha_of_cutmix_that_is_no_number_is_refused:
        "train DATA --cutmix nan" => "it must be a number from 0 (none) to 100";
}

// The recipe.
refusals! {
    a_run_of_no_epochs_is_refused: "train DATA --epochs 0" => "a run needs at least 1 epoch";
    a_step_without_images_is_refused: "train DATA --batch-size 0" => "a batch needs at least 1 image";
    a_step_of_more_images_than_there_are_is_refused:
        "train DATA --batch-size 64" =>
        "a batch of 64 images is more than the 40 to train on; use --batch-size 40 or less";
    a_learning_rate_that_is_no_number_is_refused: "train DATA --lr nan" => "the learning rate must be 0 or more";
    a_weight_decay_below_0_is_refused: "train DATA --weight-decay=-1" => "weight decay must be 0 or more";
    a_warm_up_below_0_is_refused: "train DATA --warmup=-1" => "it must be a number of 0 or more";
    a_warm_up_that_looks_like_an_option_is_refused: "train DATA --warmup -1" => "unexpected argument '-1'";
    an_unknown_schedule_is_refused: "train DATA --schedule linear" => "[possible values: constant, steps, cosine";
    an_unknown_optimiser_is_refused: "train DATA --optimizer adam" => "[possible values: sgd, adamw]";
    a_cycle_of_momentum_without_a_cycle_is_refused:
        "train DATA --schedule cosine --cycle-momentum" => "--cycle-momentum is for --schedule one-cycle";
    clipping_to_nothing_is_refused:
        "train DATA --clip 0" => "the largest norm of the gradients must be more than 0 and finite, found 0";
    an_average_that_never_moves_is_refused: "train DATA --ema 1" => "the average's decay must be in [0, 1), found 1";
    smoothing_all_of_a_label_is_refused:
        "train DATA --label-smoothing 1" => "label smoothing must be in [0, 1), found 1";
    smoothing_labels_that_are_independent_is_refused:
        "train TABLE --label-smoothing 0.1" =>
        "--label-smoothing is for pictures that have one class each; these may have several";
    weights_of_classes_of_which_one_never_applies_are_refused:
        "train --csv never.csv --root data/train --balance" => "no weight can balance it";
    a_weight_of_an_unknown_class_is_refused:
        "train DATA --class-weight zebra=2" => "--class-weight names `zebra`, but the pictures have the classes ";
    a_weight_of_a_class_below_0_is_refused:
        "train TABLE --class-weight odd=-1" => "class weights: class 0 has -1";
    a_weight_that_is_no_number_is_refused:
        "train TABLE --positive-weight odd=nan" => "positive weights: class 0 has NaN";
    two_weights_of_a_class_are_refused:
        "train TABLE --class-weight odd=1 --class-weight odd=2" => "--class-weight names `odd` twice; leave one out";
    a_weight_without_a_class_is_refused:
        "train TABLE --positive-weight 2" => "write it as CLASS=4";
    a_positive_weight_where_classes_exclude_each_other_is_refused:
        "train DATA --positive-weight zebra=2" =>
        "--positive-weight is for pictures that may have several classes";
    an_error_of_one_class_as_the_score_where_classes_are_independent_is_refused:
        "train TABLE --best-by top1_error" => "are for pictures that have one class each";
    an_unknown_score_is_refused: "train DATA --best-by f1" => "`f1` is not a score; use one of";
    an_unknown_rule_for_thresholds_is_refused:
        "train DATA --threshold 0.5" => "`0.5` is not a rule for thresholds; write youden, or sensitivity=0.9";
    a_sensitivity_above_1_is_refused:
        "train TABLE --threshold sensitivity=1.5" => "`sensitivity=1.5` is not a rule for thresholds";
    thresholds_of_classes_that_exclude_each_other_are_refused:
        "train DATA --threshold youden" => "--threshold is for pictures that may have several classes";
    a_patience_that_is_no_count_is_refused: "train DATA --patience some" => "invalid value 'some'";
    a_share_of_the_rate_for_a_part_that_is_not_there_is_refused:
        "train DATA --part-rate denseblock9=0.1" =>
        "no part `denseblock9`; did you mean `features.denseblock";
    a_share_of_the_rate_below_0_is_refused:
        "train DATA --part-rate denseblock1=-1" =>
        "a part's share of the learning rate must be 0 or more and finite, found ";
    a_share_of_the_rate_without_a_part_is_refused:
        "train DATA --part-rate 0.1" => "write it as denseblock1=0.1";
    a_frozen_part_that_is_not_there_is_refused: "train DATA --freeze denseblok1" => "did you mean `features.denseblock1`";
    a_norm_that_is_frozen_in_part_is_refused:
        "train DATA --freeze conv0,denseblock1.denselayer1.norm1.weight" =>
        "features.denseblock1.denselayer1.norm1 would be partly frozen";
    a_network_of_which_nothing_trains_is_refused:
        "train DATA --freeze features,classifier" => "freezing all parts would leave nothing to train";
    frozen_parts_that_end_within_a_norm_are_refused:
        "train DATA --freeze-until norm5.bias" => "features.norm5 would be partly frozen";
    two_ways_to_freeze_together_are_refused:
        "train DATA --freeze conv0 --freeze-until denseblock1" => "cannot be used with";
}

// Weights to start from, and runs to go on with.
refusals! {
    the_features_of_no_weights_are_refused: "train DATA --features-only" => "--pretrained <FILE>";
    pretrained_weights_that_are_not_there_are_refused:
        "train DATA --pretrained none.pth" => "cannot read none.pth";
    damaged_pretrained_weights_are_refused:
        "train DATA --pretrained damaged.safetensors" => "damaged.safetensors";
    pretrained_weights_of_other_classes_are_refused_with_what_to_do:
        "train DATA --pretrained two.safetensors" => "--features-only";
    pretrained_weights_of_another_network_are_refused:
        "train DATA --model densenet121 --input 32 --pretrained weights.safetensors" =>
        "weights.safetensors does not fit the network: missing (";
    pretrained_weights_whose_note_makes_no_sense_are_refused:
        "train DATA --pretrained view.safetensors" =>
        "view.safetensors, its note densenet.view: invalid type: string \"half\"";
    pretrained_weights_and_a_run_to_go_on_with_together_are_refused:
        "train DATA --pretrained weights.safetensors --resume weights.safetensors" => "cannot be used with";
    a_run_to_go_on_with_that_is_not_there_is_refused:
        "train DATA --resume none.safetensors" => "cannot read none.safetensors";
    weights_without_a_run_to_go_on_with_are_refused:
        "train DATA --resume weights.safetensors" => "weights.safetensors holds weights, but no run to resume";
    an_unknown_device_is_refused: "train DATA --device tpu" => "tpu";
    an_unknown_precision_is_refused: "train DATA --precision f8" => "f8";
}

// A crate.
refusals! {
    a_new_crate_in_a_folder_that_is_there_is_refused: "new data DATA" => "cannot create data";
    a_new_crate_for_pictures_that_are_not_there_is_refused: "new fresh --data none" => "none/train is missing";
    a_new_crate_on_something_that_is_not_the_runtime_is_refused:
        "new fresh DATA --runtime data" => "data is not the folder of the crate densenet-runtime; give it with --runtime";
}
