//! What `evaluate`, `predict` and `convert` refuse.

use crate::refusals::refusals;

refusals! {
    an_evaluation_without_weights_is_refused: "evaluate DATA" => "--weights <FILE>";
    an_evaluation_without_pictures_is_refused: "evaluate --weights weights.safetensors" => "--data <DIR>";
    weights_that_are_not_there_are_refused: "evaluate --weights none DATA" => "cannot read none";
    damaged_weights_are_refused:
        "evaluate --weights damaged.safetensors DATA" => "damaged.safetensors is damaged, or not a file of weights";
    scores_for_a_folder_that_is_not_there_are_refused:
        "evaluate --weights weights.safetensors --input 32 DATA --json none/file" => "cannot write none/file";
    probabilities_for_a_folder_that_is_not_there_are_refused:
        "evaluate --weights weights.safetensors --input 32 DATA --predictions none/file" => "cannot write none/file";
    a_report_in_a_folder_that_is_in_use_is_refused:
        "evaluate --weights weights.safetensors --input 32 DATA --report data" =>
        "--report data: the folder is not empty; choose a new one";
    a_part_of_no_split_is_refused:
        "evaluate --weights weights.safetensors DATA --part train" => "--split <FILE>";
    a_table_in_place_of_a_split_is_refused:
        "evaluate --weights weights.safetensors --data data/train --split missing.csv" =>
        "its columns are `path`, `label`, but a split has `path` and `set`";
    a_split_to_evaluate_that_is_not_there_is_refused:
        "evaluate --weights weights.safetensors --data data/train --input 32 --split none.csv" => "none.csv";
    a_split_to_evaluate_of_a_folder_that_has_its_own_is_refused:
        "evaluate --weights weights.safetensors DATA --split missing.csv" =>
        "data has validation pictures in data/val";
    pictures_of_more_classes_than_the_network_has_are_refused:
        "evaluate --weights two.safetensors DATA --input 32" => "the data has 10 classes, but the network has 2";
    pictures_of_other_classes_than_the_weights_name_are_refused:
        "evaluate --weights named.safetensors DATA --input 32" => "but the weights are for [\"cat\", \"dog\"]";
    a_set_of_which_no_picture_can_be_read_is_refused:
        "evaluate --weights two.safetensors --data broken --input 32" => "none of the pictures could be read";
    pictures_of_fewer_classes_than_nameless_weights_have_are_refused:
        "evaluate --weights weights.safetensors --data fewer --input 32" => "which of them are meant is unknown";
    a_number_of_crops_that_is_not_known_is_refused:
        "evaluate --weights weights.safetensors DATA --crops 5" => "the number of crops must be 1 or 10, not 5";
    a_table_without_labels_is_refused:
        "evaluate --weights named.safetensors --input 32 --csv paths.csv --root data/train" =>
        "paths.csv has no labels beside the paths";
    pictures_of_fewer_independent_classes_than_the_network_has_are_refused:
        "evaluate --weights weights.safetensors --input 32 TABLE" =>
        "the weights are for 10; the table needs a column for each";
    a_copy_of_the_weights_without_thresholds_is_refused:
        "evaluate --weights weights.safetensors DATA --out own.safetensors" => "--threshold <RULE>";
    thresholds_chosen_for_classes_that_exclude_each_other_are_refused:
        "evaluate --weights weights.safetensors DATA --input 32 --threshold youden" =>
        "--threshold is for pictures that may have several classes";
    thresholds_chosen_by_ten_crops_are_refused:
        "evaluate --weights two.safetensors --input 32 --csv two.csv --root data/train --threshold youden --crops 10" =>
        "one crop of each picture, not 10; leave --crops out";
    thresholds_for_a_file_of_an_unknown_format_are_refused:
        "evaluate --weights two.safetensors --input 32 --csv two.csv --root data/train --threshold youden --out own.onnx" =>
        "cannot tell the format of own.onnx by its name";
    thresholds_for_a_folder_that_is_not_there_are_refused:
        "evaluate --weights two.safetensors --input 32 --csv two.csv --root data/train --threshold youden --out none/own.pth" =>
        "--out none/own.pth: there is no folder none; make it first";
    thresholds_for_a_file_that_is_there_are_refused:
        "evaluate --weights two.safetensors --input 32 --csv two.csv --root data/train --threshold youden --out two.safetensors" =>
        "--out two.safetensors: the file exists; give it another name, or remove it first";
    a_range_of_samples_whose_ends_are_swapped_is_refused_in_evaluation:
        "evaluate --weights weights.safetensors --input 32 DATA --range 1 0" => "samples cannot range from 1 to 0";
}

refusals! {
    a_prediction_of_no_pictures_is_refused: "predict --weights weights.safetensors" => "<PICTURE>";
    a_picture_that_cannot_be_read_is_refused:
        "predict --weights weights.safetensors none.jpg" => "the picture could not be read";
    a_folder_without_pictures_is_refused_in_prediction:
        "predict --weights weights.safetensors empty" => "there are no pictures in empty";
    a_list_that_is_not_there_is_refused:
        "predict --weights weights.safetensors --list none.txt" => "cannot read none.txt";
    names_of_classes_that_are_not_there_are_refused:
        "predict --weights weights.safetensors --classes none.txt x.jpg" => "cannot read none.txt";
    more_or_fewer_names_than_classes_are_refused:
        "predict --weights weights.safetensors --classes names.txt x.jpg" =>
        "2 names were given for the 10 classes of weights.safetensors";
    weights_that_name_more_classes_than_they_have_are_refused:
        "predict --weights many.safetensors x.jpg" => "many.safetensors names 3 classes, but its network has 2";
    a_note_of_how_pictures_are_shown_that_makes_no_sense_is_refused:
        "predict --weights view.safetensors x.jpg" =>
        "view.safetensors, its note densenet.view: invalid type: string \"half\"";
    a_note_of_the_network_that_makes_no_sense_is_refused:
        "predict --weights spec.safetensors x.jpg" => "spec.safetensors, its note densenet.spec: ";
    a_threshold_above_1_is_refused:
        "predict --weights weights.safetensors --threshold 2 x.jpg" => "from 0 to 1";
    an_unknown_form_of_answers_is_refused:
        "predict --weights weights.safetensors --format xml x.jpg" => "[possible values: table, csv, ";
}

refusals! {
    damaged_weights_are_not_converted: "convert damaged.safetensors out.safetensors" => "damaged.safetensors is damaged";
    weights_that_are_not_there_are_not_converted: "convert none.pth out.safetensors" => "cannot read none.pth";
    weights_are_not_converted_to_a_folder_that_is_not_there:
        "convert weights.safetensors none/out.pth" => "cannot write none/out.pth";
    weights_are_not_converted_to_an_unknown_format:
        "convert weights.safetensors out.h5" => "cannot tell the format of out.h5 by its name";
}
